"""Find the GPUs of a machine in sysfs, without lspci and, unless the kernel requires it, without root."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.gpu.driver_blocks import DriverBlocks
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpu_ids import (
    ARC_B,
    GPUS,
    INTEGRATED,
    OTHER,
    UNKNOWN,
    USED,
)

INTEL_VENDOR = "0x8086"
#: PCI base class 03 is a display controller: 0300 VGA compatible, 0302 3D, 0380 other (data center cards).
DISPLAY_CLASS = "0x03"
BRIDGE_CLASS = "0x0604"
#: Without resizable BAR the memory BAR is a window of this size, whatever the size of the memory.
WINDOW = 256 * 1024**2
#: Memory in GiB behind devices whose BAR is larger: its size is a power of two, the memory's is not. Source: Intel's
#: product pages.
_ODD_SIZES = {
    **{"5691": 12, "56a5": 6, "56b1": 6, "56b3": 12, "56ba": 6},
    **{"56c1": 6, "0bda": 48, "e20b": 12, "e20c": 10, "e211": 24},
}
#: Where role inference assigns an instance its GPU, and the name of the variable.
_INSTANCES = "etc/systemd/system/xpuserve@*.service.d/gpu.conf"
_SERVED = re.compile(r"^# GPU (\S+) ", re.MULTILINE)
#: Graphics drivers of Linux. A card bound to another driver has another use: vfio-pci and xen-pciback pass it to
#: virtual machines, uio_pci_generic to a program.
DRIVERS = ("i915", "xe")
_VERSION_FOUND = re.compile(r"\bfound\b\D*(\d+(?:\.\d+)+)")


@dataclass(frozen=True)
class Link:
    """A PCIe link, as the port at its lower end reports it; lanes and GT/s, 0 if unknown."""

    address: str
    width: int
    maximum_width: int
    speed: float
    maximum_speed: float

    @property
    def reduced(self) -> bool:
        """Whether the link is narrower or slower than the port supports."""
        return 0 < self.width < self.maximum_width or 0 < self.speed < self.maximum_speed


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    ``address`` is the PCI address, ``id`` vendor and device as ``8086:56a0``, ``family`` arc, arc-b, flex or max,
    unknown for a card newer than the lists of ids, or integrated or other for GPUs that are reported but not used.
    ``driver`` is the bound kernel driver or "", ``driver_version`` its own version or that of its kernel,
    ``driver_out_of_tree`` whether it is not part of the kernel (DKMS). ``render_node`` and ``card_node`` are paths
    below /dev/dri or "" (by PCI address if udev makes such links: numbers may change from boot to boot).
    ``memory_bytes`` is local memory, 0 if the kernel does not tell, ``memory_bar_bytes`` how much of it the CPU can
    address, and ``resizable_bar`` whether that is more than the classic window. ``link`` is the card's own; cards with
    an internal switch report its inner link there, so ``slot_link`` is the link to the mainboard. ``firmware`` has GuC
    and HuC if debugfs is readable. ``kernel_modules`` are those of the running kernel that claim the device, None if
    its modules are not visible. ``lent`` says which other driver or use has the card, "" for none, and ``blocked`` what
    keeps its own driver from binding at the next boot, or kept it at this one.
    """

    address: str
    id: str
    name: str
    family: str
    driver: str
    render_node: str
    memory_bytes: int
    card_node: str = ""
    driver_version: str = ""
    driver_out_of_tree: bool = False
    memory_bar_bytes: int = 0
    resizable_bar: bool = False
    numa_node: int = -1
    link: Optional[Link] = None
    slot_link: Optional[Link] = None
    firmware: dict[str, dict[str, str]] = field(default_factory=dict)
    virtual_functions: int = 0
    maximum_virtual_functions: int = 0
    virtual_function_of: str = ""
    kernel_modules: Optional[list[str]] = None
    lent: str = ""
    blocked: list[str] = field(default_factory=list)

    @property
    def used(self) -> bool:
        """Whether the choice of a stack depends on it; functions passed to virtual machines do not count."""
        return self.family in (*USED, UNKNOWN) and not self.virtual_function_of

    @property
    def uncovered(self) -> bool:
        """Whether it is a card of Intel's without a stack."""
        return self.family == OTHER and self.id.startswith("8086:") and not self.virtual_function_of

    @property
    def free(self) -> bool:
        """Whether the roles use it."""
        return self.used and not self.lent

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a module's result."""
        data = {**asdict(self), "uncovered": self.uncovered}
        for name, link in (("link", self.link), ("slot_link", self.slot_link)):
            if link is not None:
                data[name]["reduced"] = link.reduced
        return data


def all_gpus(root: Path = Path("/")) -> list[Gpu]:
    """Return every display controller of a machine whose files are below ``root``, in PCI order."""
    devices = root / "sys/bus/pci/devices"
    if not devices.is_dir():
        return []
    displays = [path for path in sorted(devices.iterdir()) if _read(path / "class").startswith(DISPLAY_CLASS)]
    modules, blocks = _Modules(root), DriverBlocks(root)
    return [_gpu(device, root, modules, blocks) for device in displays]


def find_gpus(root: Path = Path("/")) -> list[Gpu]:
    """Return the GPUs that the choice of a stack depends on, in PCI order."""
    return [gpu for gpu in all_gpus(root) if gpu.used]


def served_gpus(root: Path = Path("/")) -> list[str]:
    """Return the PCI addresses of the GPUs assigned to the node's instances, present or not."""
    given = (_SERVED.search(_read(path)) for path in root.glob(_INSTANCES))
    return sorted({found[1] for found in given if found})


def is_container(root: Path = Path("/")) -> bool:
    """Tell whether this system runs in a container, whose kernel belongs to the host."""
    markers = ("run/systemd/container", ".dockerenv", "run/.containerenv")
    if any((root / marker).exists() for marker in markers):
        return True
    try:
        environment = (root / "proc/1/environ").read_bytes()
    except OSError:
        return False
    return any(entry.startswith(b"container=") for entry in environment.split(b"\0"))


def _gpu(device: Path, root: Path, modules: _Modules, blocks: DriverBlocks) -> Gpu:
    vendor = _read(device / "vendor").removeprefix("0x").lower()
    device_id = _read(device / "device").removeprefix("0x").lower()
    aperture = _memory_bar(device)
    driver = device / "driver"
    bound = driver.resolve().name if driver.exists() else ""
    family, name = _identity(vendor, device_id, device.name, aperture)
    version, out_of_tree = _driver_version(driver, root)
    physical = device / "physfn"
    return Gpu(
        address=device.name,
        id=f"{vendor}:{device_id}",
        name=name,
        family=family,
        driver=bound,
        driver_version=version,
        driver_out_of_tree=out_of_tree,
        render_node=_node(device, root, "renderD", "render"),
        card_node=_node(device, root, "card", "card"),
        memory_bytes=_memory(device, device_id, aperture) if family in (*USED, UNKNOWN) else 0,
        memory_bar_bytes=aperture,
        resizable_bar=aperture > WINDOW,
        numa_node=_number(device / "numa_node", -1),
        link=_link(device),
        slot_link=_slot_link(device),
        firmware=_firmware(device, root),
        virtual_functions=_number(device / "sriov_numvfs"),
        maximum_virtual_functions=_number(device / "sriov_totalvfs"),
        virtual_function_of=physical.resolve().name if physical.exists() else "",
        kernel_modules=modules.claiming(_read(device / "modalias")),
        lent=_lent(device, bound) if family in (*USED, UNKNOWN) else "",
        blocked=_blocked(device, family, device_id, blocks) if family in (*USED, UNKNOWN) else [],
    )


def _identity(vendor: str, device_id: str, address: str, aperture: int) -> tuple[str, str]:
    """Return family and name; the second device of the first bus is the integrated GPU, whatever its id.

    A virtual machine may have a card in that place: its memory shows that. In other places an unknown id is a card,
    even if this kernel does not drive it either, or gave it no memory.
    """
    if f"0x{vendor}" != INTEL_VENDOR:
        return OTHER, f"display controller {vendor}:{device_id}"
    name = f"Intel graphics {device_id}"
    if re.search(r":00:02\.[0-7]$", address) and aperture <= WINDOW:
        return GPUS.get(device_id, (INTEGRATED, name))
    return GPUS.get(device_id, (UNKNOWN, name))


def _drivers(family: str) -> tuple[str, ...]:
    """Return the drivers for a card: Arc A, Flex and Max use i915; xe drives them only experimentally."""
    return {ARC_B: ("xe",), UNKNOWN: DRIVERS}.get(family, ("i915",))


def _lent(device: Path, driver: str) -> str:
    override = _override(device)
    if driver and driver not in DRIVERS:
        return f"bound to {driver}"
    return f"kept for {override} (driver_override)" if override and not driver else ""


def _override(device: Path) -> str:
    """Return the non-graphics driver that a card is reserved for, even if a graphics driver is still bound to it."""
    override = _read(device / "driver_override")
    return "" if override in ("(null)", *DRIVERS) else override


def _blocked(device: Path, family: str, device_id: str, blocks: DriverBlocks) -> list[str]:
    override = _override(device)
    kept = [f"driver_override in sysfs is {override}"] if override else []
    return kept + blocks.of(_drivers(family), device_id, device.name)


def _driver_version(driver: Path, root: Path) -> tuple[str, bool]:
    """Return the version of a bound driver, and whether it is out of tree."""
    if not driver.exists():
        return "", False
    link = driver / "module"
    module = root / "sys/module" / (link.resolve().name if link.exists() else driver.resolve().name)
    out_of_tree = "O" in _read(module / "taint")
    own = _read(module / "version") or (_read(module / "srcversion") if out_of_tree else "")
    return own or _read(root / "proc/sys/kernel/osrelease"), out_of_tree


def _node(device: Path, root: Path, prefix: str, kind: str) -> str:
    nodes = sorted(path.name for path in (device / "drm").glob(f"{prefix}[0-9]*"))
    if not nodes:
        return ""
    stable = f"dev/dri/by-path/pci-{device.name}-{kind}"
    return f"/{stable}" if (root / stable).exists() else f"/dev/dri/{nodes[0]}"


def _memory_bar(device: Path) -> int:
    """Size of the BAR that maps local memory, the third; each line has its start, end and flags."""
    lines = _read(device / "resource").splitlines()
    if len(lines) < 3:
        return 0
    start, end, _flags = (int(number, 16) for number in lines[2].split())
    return end - start + 1 if end else 0


def _memory(device: Path, device_id: str, aperture: int) -> int:
    """Local memory in bytes: the driver's value, else the size of the memory BAR if it is resized to cover all."""
    for total in sorted((device / "drm").glob("card*/lmem_total_bytes")):
        return _number(total)
    if aperture <= WINDOW:
        return 0
    return min(aperture, _ODD_SIZES[device_id] * 1024**3) if device_id in _ODD_SIZES else aperture


def _link(port: Path) -> Optional[Link]:
    if not (port / "current_link_width").exists():
        return None
    return Link(
        address=port.resolve().name,
        width=_number(port / "current_link_width"),
        maximum_width=_number(port / "max_link_width"),
        speed=_gigatransfers(port / "current_link_speed"),
        maximum_speed=_gigatransfers(port / "max_link_speed"),
    )


def _slot_link(device: Path) -> Optional[Link]:
    """Return the link between card and mainboard: the upper one of two bridges of Intel's below the root port."""
    bridges = list(_bridges(device))
    inside = bridges[:2]
    if len(bridges) > 2 and all(_read(bridge / "vendor") == INTEL_VENDOR for bridge in inside):
        return _link(inside[1])
    return _link(device)


def _bridges(device: Path) -> Iterator[Path]:
    """Yield the bridges above a device, the nearest first: its real directory is inside theirs."""
    for parent in device.resolve().parents:
        if not _read(parent / "class").startswith(BRIDGE_CLASS):
            return
        yield parent


def _gigatransfers(path: Path) -> float:
    match = re.match(r"\d+(\.\d+)?", _read(path))
    return float(match[0]) if match else 0.0


def _firmware(device: Path, root: Path) -> dict[str, dict[str, str]]:
    """Return file, status and version of the GPU's own firmware; only root can read debugfs."""
    found: dict[str, dict[str, str]] = {}
    cards = sorted(path.name.removeprefix("card") for path in (device / "drm").glob("card[0-9]*"))
    places = [root / "sys/kernel/debug/dri" / name for name in (device.name, *cards)]
    for place in places:
        for gt in ("gt0", "gt"):
            for kind in ("guc", "huc"):
                text = _read(place / gt / "uc" / f"{kind}_info")
                if text and kind not in found:
                    found[kind] = _firmware_facts(text)
    return found


def _firmware_facts(text: str) -> dict[str, str]:
    file = re.search(r"firmware: (\S+)", text)
    status = re.search(r"status: (\S+)", text)
    version = _VERSION_FOUND.search(text)
    return {
        "file": file[1] if file else "",
        "status": status[1] if status else "",
        "version": version[1] if version else "",
    }


class _Modules:
    """The devices that modules of the running kernel, built-in ones too, claim to drive."""

    def __init__(self, root: Path) -> None:
        directory = root / "lib/modules" / (_read(root / "proc/sys/kernel/osrelease") or "unknown")
        self._aliases: list[tuple[str, str]] = []
        self._seen = False
        for line in self._text(directory / "modules.alias").splitlines():
            if line.startswith("alias pci:"):
                _ignored, pattern, module = line.split(None, 2)
                self._aliases.append((pattern, module))
        for entry in self._text(directory / "modules.builtin.modinfo").split("\0"):
            module, _between, value = entry.partition(".")
            if value.startswith("alias=pci:"):
                self._aliases.append((value.removeprefix("alias="), module))

    def claiming(self, modalias: str) -> Optional[list[str]]:
        """Return the modules that claim a device; None if unknown."""
        if not self._seen or not modalias:
            return None
        return sorted({module for pattern, module in self._aliases if fnmatch.fnmatchcase(modalias, pattern)})

    def _text(self, path: Path) -> str:
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""
        self._seen = True
        return text


def _number(path: Path, otherwise: int = 0) -> int:
    try:
        return int(_read(path))
    except ValueError:
        return otherwise


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
