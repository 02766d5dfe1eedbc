"""GRUB on a node: its menu, settings and environment block, and their problems that prevent a change."""

from __future__ import annotations

from pathlib import Path
from typing import Optional

from ansible_collections.xpu.fleet.plugins.module_utils.boot.files import (
    BLOCK,
    DROP_IN,
    MENU,
    BootError,
    BootFiles,
    has_content,
)
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_entry import Entry, MenuError
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_menu import Menu
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_settings import (
    BlockError,
    EnvironmentBlock,
    GrubSettings,
    settings_files,
)

#: File systems and layers below them that GRUB reads but does not write. It does write to LUKS (its cryptodisk encrypts
#: what it writes), for which it asks a passphrase before.
READ_ONLY_FILE_SYSTEMS = frozenset(
    ("btrfs", "cpiofs", "newc", "odc", "romfs", "squash4", "tarfs", "zfs"),
)
READ_ONLY_LAYERS = frozenset(("diskfilter", "lvm"))
STAYS = "the settings of GRUB say panic=0, with which a node whose kernel fails would not return; remove it"


class Grub:
    """GRUB of a node. Reads everything at once; missing or damaged files are no error here."""

    def __init__(self, place: BootFiles) -> None:
        self._place = place
        self._files = settings_files(place.root / "etc")
        self._settings = GrubSettings(self._files)
        self.block, self.block_problem = self._read_block()
        self._menu_text = place.text(MENU)
        self.menu, self.menu_problem = self._read_menu()
        self.unwritable, self._layers = self._unwritable()

    def _read_block(self) -> tuple[EnvironmentBlock, str]:
        try:
            return EnvironmentBlock((self._place.root / BLOCK).read_bytes()), ""
        except FileNotFoundError:
            return EnvironmentBlock(), ""
        except (OSError, BlockError) as error:
            return EnvironmentBlock(), f"/{BLOCK}: {error}"

    def _read_menu(self) -> tuple[Optional[Menu], str]:
        if not self._menu_text:
            return None, f"/{MENU} is not there, is empty or cannot be read"
        try:
            return self.parsed(self._menu_text), ""
        except MenuError as error:
            return None, f"/{MENU}: {error}"

    def parsed(self, text: str, next_entry: str = "") -> Menu:
        """Return a menu as GRUB sees it, with or without an entry for the next boot. Raises MenuError."""
        block = {key: value for key, value in self.block.variables.items() if key != "next_entry"}
        if next_entry:
            block["next_entry"] = next_entry
        sources = {"custom.cfg": self._place.text("boot/grub/custom.cfg")}
        return Menu(text, block, {name: source for name, source in sources.items() if source})

    def _unwritable(self) -> tuple[str, set[str]]:
        """Return why GRUB cannot write its environment block, "" if it can, and the layers below its directory."""
        directory = str((self._place.root / BLOCK).parent)
        answers = []
        for target in ("fs", "abstraction"):
            status, output, error = self._place.run(["grub-probe", f"--target={target}", directory])
            if status:
                return f"grub-probe --target={target} failed: {(error or output).strip()}", set()
            answers.append(set(output.split()))
        systems, layers = answers
        if (self._place.root / BLOCK).is_symlink():
            return f"/{BLOCK} is a symbolic link, and GRUB does not write through links", layers
        if self.block_problem:
            return f"{self.block_problem} (without this file a new one is made)", layers
        lacking = sorted(systems & READ_ONLY_FILE_SYSTEMS) + sorted(layers & READ_ONLY_LAYERS)
        if lacking or not systems:
            return f"GRUB does not write to {' and '.join(lacking) or 'an unknown file system'}", layers
        return "", layers

    # --------------------------------------------------------------------------------------------------------- answers

    def default_entry(self) -> Optional[Entry]:
        """Return the default entry, None if it cannot be known."""
        try:
            return self.menu.default_entry() if self.menu else None
        except MenuError:
            return None

    def next_release(self) -> str:
        """Return the kernel of the next boot only, "" without one."""
        following = self.block.variables.get("next_entry", "")
        entry = self.menu.resolve(following) if self.menu and following else None
        return entry.release if entry else ""

    def entry(self, release: str) -> Entry:
        """Return the entry of a kernel; the present menu may be damaged, or older than the kernel. Raises BootError."""
        menu = self.menu
        kernel = self._place.root / f"boot/vmlinuz-{release}"
        if menu is None or (release not in menu.releases() and has_content(kernel)):
            fresh = self._place.checked_run(["grub-mkconfig"])
            try:
                menu = self.parsed(fresh)
            except MenuError as error:
                raise BootError(f"cannot parse the output of grub-mkconfig: {error}") from error
        try:
            entry = menu.find(release)
        except MenuError as error:
            raise BootError(str(error)) from error
        asks = menu.asks_password(entry)
        if asks:
            raise BootError(asks)
        return entry

    def _other_settings(self) -> GrubSettings:
        own = str(self._place.root / DROP_IN)
        return GrubSettings({path: text for path, text in self._files.items() if path != own})

    def follows(self, release: str) -> bool:
        """Tell whether GRUB's other settings boot the newest kernel, and a release is that kernel."""
        setting = self._other_settings().get("GRUB_DEFAULT")
        first = next(iter(self.menu.all_entries()), None) if self.menu else None
        return (setting is None or setting.value in ("", "0")) and first is not None and first.release == release

    def other_panic(self) -> str:
        """Return the value of panic= in the other settings, "" without one."""
        settings = self._other_settings()
        words: list[str] = []
        for key in ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"):  # in the order of an entry's arguments
            setting = settings.get(key)
            words += (setting.value or "").split() if setting else []
        values = [word.partition("=")[2] for word in words if word.startswith("panic=")]
        return values[-1] if values else ""

    def without_initramfs(self) -> list[str]:
        """Return the kernels whose existing initramfs no entry of the menu loads."""
        if self.menu is None or self.menu.boot_loader_spec:
            return []
        whole = {entry.release for entry in self.menu.all_entries() if entry.initrds}
        bare = (release for release in self.menu.releases() if release not in whole)
        return [release for release in bare if has_content(self._place.root / f"boot/initrd.img-{release}")]

    def can_make_menus(self) -> bool:
        """Tell whether there is a grub-mkconfig."""
        return self._place.run(["grub-mkconfig", "--version"])[0] == 0

    # -------------------------------------------------------------------------------------------------------- problems

    def common_problems(self, by_grub: bool) -> list[str]:
        """Return what prevents any change, except a damaged menu."""
        problems = []
        if not by_grub:
            problems.append("GRUB did not boot this node: its kernel has no BOOT_IMAGE= on its command line")
        if self.menu and self.menu.boot_loader_spec:
            problems.append(
                "GRUB's menu takes its entries from /boot/loader/entries (blscfg), a format that this collection does "
                "not support"
            )
        return problems + self._waits()

    def _waits(self) -> list[str]:
        """Return what would wait for a person before a kernel boots."""
        problems = []
        for key in ("GRUB_TIMEOUT", "GRUB_RECORDFAIL_TIMEOUT"):
            setting = self._settings.get(key)
            if setting and (setting.value or "").strip().startswith("-"):
                place = self._place.shown(setting.path)
                problems.append(
                    f"{key}={setting.value} in {place} makes GRUB wait for a person; set a number of seconds there"
                )
        if not problems and self.menu and self.menu.waits():
            problems.append(f"{self.menu.waits()}; set GRUB_TIMEOUT in /etc/default/grub")
        if "cryptodisk" in self._layers:
            problems.append("GRUB asks for a passphrase before each boot: its directory is on an encrypted disk")
        return problems

    def problems(self, by_grub: bool) -> list[str]:
        """Return what prevents any change, including a damaged menu that cannot be generated again."""
        problems = self.common_problems(by_grub)
        if self.menu is None and not self.can_make_menus():
            problems.append(f"{self.menu_problem}, and there is no grub-mkconfig")
        entry = self.default_entry()
        if self.menu and entry:
            problems += filter(None, [self.menu.asks_password(entry)])
        if self.other_panic() == "0":
            problems.append(STAYS)
        return problems

    def notes(self) -> list[str]:
        """Return faults that setting a default, or a trial, repairs."""
        menu = self.menu
        if menu is None:
            return [self.menu_problem] if self.can_make_menus() else []
        if menu.boot_loader_spec:
            return []
        try:
            entry = menu.default_entry()
        except MenuError as error:
            return [str(error)]
        notes = []
        if menu.default and not menu.has_named(menu.default):
            notes.append(f"GRUB's default '{menu.default}' is not in its menu, so it boots the first entry, {entry}")
        if entry.kind == "linux" and not entry.foreign:
            notes += self._missing_files(entry)
        return notes

    def _missing_files(self, entry: Entry) -> list[str]:
        files = map(self._place.boot_file, (*entry.kernels, *entry.initrds))
        missing = [self._place.shown(path) for path in files if not has_content(path)]
        return [f"{path}, which the entry {entry} loads, is missing or empty" for path in missing]

    def trial_problems(self, release: str, running: str, *, by_next_entry: bool) -> list[str]:
        """Return why a kernel cannot be booted once without risk."""
        menu = self.menu
        if menu is None:
            return [self.menu_problem]
        try:
            entry, default = menu.find(release), menu.default_entry()
        except MenuError as error:
            return [f"{error}; if its packages are installed, run update-grub"]
        problems = list(filter(None, [menu.asks_password(entry), menu.asks_password(default)]))
        if default.release != running or default.kind != "linux" or default.foreign or default.recovery:
            problems.append(
                f"GRUB's default is {default}, but the node must return to the running kernel {running}; make that the "
                "default first"
            )
        problems += self._missing_files(entry)
        if default.initrds and not entry.initrds:
            problems.append(f"the entry {entry} has no initramfs; update-initramfs and update-grub make it")
        if entry.argument("panic") in ("", "0"):
            problems.append(
                f"the entry {entry} has no panic=, so the node would not return by itself; add panic= to the default "
                "entry"
            )
        if by_next_entry and not self._takes_next_entry(entry):
            problems.append("GRUB's menu does not support next_entry for one boot; create it with grub-mkconfig")
        return problems

    def _takes_next_entry(self, entry: Entry) -> bool:
        """Tell whether the menu boots the entry of next_entry, and clears next_entry before that."""
        menu = self.parsed(self._menu_text, entry.path)
        chosen = menu.resolve(menu.default) if menu.default is not None else None
        return chosen is not None and chosen.path == entry.path and menu.saved.get("next_entry") == ""

    def origin_of(self, key: str) -> Path | None:
        """Return the file that sets a setting last, None without one; reads the present files."""
        setting = GrubSettings(settings_files(self._place.root / "etc")).get(key)
        return Path(setting.path) if setting else None
