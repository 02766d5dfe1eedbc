"""What prevents a graphics driver from binding to a card: the kernel's command line, GRUB's and modprobe's settings."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_settings import GrubSettings, settings_files

#: Where modprobe reads settings; of two files of one name the first counts (modprobe.d(5)).
MODPROBE = ("etc/modprobe.d", "run/modprobe.d", "usr/local/lib/modprobe.d", "usr/lib/modprobe.d", "lib/modprobe.d")
_GRUB_COMMAND_LINES = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")
#: Parameters of the kernel, of modprobe and of dracut that name modules not to load.
_BLACKLISTS = ("modprobe.blacklist", "module_blacklist", "rd.driver.blacklist")
#: Modules that reserve a card for another use, by its ids.
_KEEPERS = ("vfio_pci", "pci_stub", "xen_pciback")
#: Modules that reserve a card for other domains of Xen, by its address.
_HIDERS = ("xen_pciback", "pciback")
#: Where driverctl keeps the driver of each card, a file for each address.
_DRIVERCTL = "etc/driverctl.d"
_UDEV = ("etc/udev/rules.d", "run/udev/rules.d", "usr/local/lib/udev/rules.d")
_OVERRIDE = re.compile(r'ATTR\{(?:\[[^\]]*\])?driver_override\}\s*=\s*"(?P<driver>[^"]*)"')


class DriverBlocks:
    """The settings of a node whose files are below ``root``, each with its place."""

    def __init__(self, root: Path) -> None:
        """Read them."""
        self._parameters = list(_parameters(root))
        self._modprobe = list(_modprobe_lines(root))
        self._overrides = list(_overrides(root))

    def of(self, drivers: Sequence[str], device: str, address: str = "") -> list[str]:
        """Return what prevents all of ``drivers`` from binding to a card with PCI device id ``device``, as sentences.

        Some settings name the card by its address.
        """
        given = [
            f"{what} in {path}"
            for path, what, driver in self._overrides
            if driver not in drivers and (address in what or f"0x{device.lower()}" in what.lower()) and address
        ]
        by_driver = [[*given, *self._of(driver, device.lower(), address)] for driver in drivers]
        return list(dict.fromkeys(reason for reasons in by_driver for reason in reasons)) if all(by_driver) else []

    def _of(self, driver: str, device: str, address: str) -> Iterator[str]:
        for place, word in self._parameters:
            if _parameter_blocks(word, driver, device) or _hides(*word.partition(".")[::2], address):
                yield f"{word} {place}"
        for path, words in self._modprobe:
            hidden = words[0] == "options" and any(_hides(words[1], option, address) for option in words[2:])
            if hidden or _line_blocks(words, driver, device):
                yield f"'{' '.join(words)}' in {path}"


def _parameters(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the place of each kernel parameter, and the parameter."""
    for word in _words(_text(root / "proc/cmdline")):
        yield "on the kernel's command line", word
    try:
        settings = GrubSettings(settings_files(root / "etc"))
    except OSError:
        return
    for name in _GRUB_COMMAND_LINES:
        setting = settings.get(name)
        if setting is not None:
            path = Path(setting.path)
            place = f"/{path.relative_to(root)}" if path.is_relative_to(root) else setting.path
            for word in _words(setting.value or ""):
                yield f"in {name} of {place}", word


def _words(line: str) -> list[str]:
    """Return the words of a command line as the kernel splits it: text in double quotes stays together."""
    return [word.replace('"', "") for word in re.findall(r'(?:[^\s"]|"[^"]*")+', line)]


def _parameter_blocks(word: str, driver: str, device: str) -> bool:
    name, _equals, value = word.partition("=")
    name = _plain(name)
    if name == "nomodeset":
        return not value
    if name in _BLACKLISTS:
        return driver in map(_plain, value.split(","))
    if name == "initcall_blacklist":
        return f"{driver}_init" in value.split(",")
    module, _dot, option = name.partition(".")
    return _option_blocks(module, f"{option}={value}", driver, device)


def _line_blocks(words: Sequence[str], driver: str, device: str) -> bool:
    command, module, rest = words[0], _plain(words[1]), words[2:]
    if command == "blacklist":
        return module == driver
    if command == "install":  # a command that loads nothing: /bin/false, /bin/true, ":"
        return module == driver and not any(re.search(r"modprobe|insmod", word) for word in rest)
    if command == "alias":
        return module == driver and rest == ["off"]
    return command == "options" and any(_option_blocks(module, option, driver, device) for option in rest)


def _option_blocks(module: str, option: str, driver: str, device: str) -> bool:
    """Tell whether an option of a module keeps a driver from a device; option names are unique to a module."""
    name, _equals, value = option.partition("=")
    values = value.strip('"').lower().split(",")
    if module == driver:
        refused = {"!*", f"!{device}", f"!0x{device}"}
        return (name == "modeset" and values == ["0"]) or (name == "force_probe" and bool(refused.intersection(values)))
    return module in _KEEPERS and name == "ids" and any(f"8086:{device}" == entry[:9] for entry in values)


def _hides(module: str, option: str, address: str) -> bool:
    """Tell whether an option of Xen's modules hides the card at an address, as in hide=(03:00.0)(0000:05:00.*)."""
    name, _equals, value = option.partition("=")
    if _plain(module) not in _HIDERS or name != "hide" or not address:
        return False
    places = re.findall(r"\(([^)]*)\)", value)
    return any(fnmatch.fnmatchcase(address, place if place.count(":") > 1 else f"0000:{place}") for place in places)


def _overrides(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the place, the text and the driver of each setting that binds a card to a driver at boot."""
    for path in _files(root / _DRIVERCTL, ""):
        driver = _text(path).strip()
        if driver:
            yield f"/{_DRIVERCTL}/{path.name}", f"{driver} for {path.name}", driver
    for directory in _UDEV:
        for path in _files(root / directory, ".rules"):
            for line in _text(path).replace("\\\n", " ").splitlines():
                found = None if line.lstrip().startswith("#") else _OVERRIDE.search(line)
                if found and found["driver"]:
                    yield f"/{directory}/{path.name}", " ".join(line.split()), found["driver"]


def _modprobe_lines(root: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield the path and the words of each command in modprobe's settings."""
    seen: set[str] = set()
    for directory in MODPROBE:
        for path in _files(root / directory, ".conf"):
            if path.name in seen:
                continue
            seen.add(path.name)
            for line in _text(path).replace("\\\n", " ").splitlines():
                words = line.split("#", 1)[0].split()
                if len(words) > 1:
                    yield f"/{directory}/{path.name}", words


def _files(directory: Path, suffix: str) -> Iterable[Path]:
    try:
        return sorted(path for path in directory.iterdir() if path.name.endswith(suffix))
    except OSError:
        return ()


def _plain(name: str) -> str:
    """Return a name as the kernel compares it: - and _ are equal."""
    return name.replace("-", "_")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
