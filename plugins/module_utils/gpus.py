"""Find the Intel GPUs of a machine in sysfs, without lspci and without root."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

INTEL_VENDOR = "0x8086"
#: PCI base class 03 is a display controller: 0300 VGA compatible, 0380 other (data center cards).
DISPLAY_CLASSES = ("0x0300", "0x0380")

#: Device id to (family, marketing name). Sources: devices_base.inl of intel/compute-runtime and
#: include/drm/intel/pciids.h of Linux (DG2, ATS-M, PVC and BMG lists).
_ARC_A = {
    "5690": "Intel Arc A770M",
    "5691": "Intel Arc A730M",
    "5692": "Intel Arc A550M",
    "5693": "Intel Arc A370M",
    "5694": "Intel Arc A350M",
    "5695": "Intel Arc (DG2-128 mobile)",
    "5696": "Intel Arc A570M",
    "5697": "Intel Arc A530M",
    "56a0": "Intel Arc A770",
    "56a1": "Intel Arc A750",
    "56a2": "Intel Arc A580",
    "56a3": "Intel Arc (DG2-512)",
    "56a4": "Intel Arc (DG2-512)",
    "56a5": "Intel Arc A380",
    "56a6": "Intel Arc A310",
    "56af": "Intel Arc (DG2-512)",
    "56b0": "Intel Arc Pro A30M",
    "56b1": "Intel Arc Pro A40/A50",
    "56b2": "Intel Arc Pro A60M",
    "56b3": "Intel Arc Pro A60",
    "56ba": "Intel Arc A380E",
    "56bb": "Intel Arc A310E",
    "56bc": "Intel Arc A370E",
    "56bd": "Intel Arc A350E",
    "56be": "Intel Arc A750E",
    "56bf": "Intel Arc A580E",
}
_FLEX = {
    "56c0": "Intel Data Center GPU Flex 170",
    "56c1": "Intel Data Center GPU Flex 140",
    "56c2": "Intel Data Center GPU Flex 170V",
}
_MAX = dict.fromkeys(
    ("0b69", "0b6e", "0bd0", "0bd4", "0bd5", "0bd6", "0bd7", "0bd8", "0bd9", "0bda", "0bdb", "0be0", "0be1", "0be5"),
    "Intel Data Center GPU Max",
)
_ARC_B = {
    **dict.fromkeys(("e202", "e209", "e20d", "e210", "e215", "e216", "e220", "e221", "e222"), "Intel Arc (Battlemage)"),
    "e20b": "Intel Arc B580",
    "e20c": "Intel Arc B570",
    "e211": "Intel Arc Pro B60",
    "e212": "Intel Arc Pro B50",
    "e223": "Intel Arc Pro B70",
}
GPUS: dict[str, tuple[str, str]] = {
    device: (family, name)
    for family, table in (("arc", _ARC_A), ("arc-b", _ARC_B), ("flex", _FLEX), ("max", _MAX))
    for device, name in table.items()
}
#: Memory in GiB behind devices whose BAR is larger: its size is a power of two, the memory's is not. Source: Intel's
#: product pages.
_ODD_SIZES = {
    **{"5691": 12, "56a5": 6, "56b1": 6, "56b3": 12, "56ba": 6},
    **{"56c1": 6, "0bda": 48, "e20b": 12, "e20c": 10, "e211": 24},
}


@dataclass(frozen=True)
class Gpu:
    """One discrete Intel GPU.

    ``address`` is the PCI address, ``id`` vendor and device as ``8086:56a0``, ``family`` arc, arc-b, flex or max,
    ``driver`` the bound kernel driver or "", ``render_node`` its path below /dev/dri or "" (by PCI address where udev
    makes that: numbers may change from boot to boot), ``memory_bytes`` its local memory, 0 where the kernel tells none.
    """

    address: str
    id: str
    name: str
    family: str
    driver: str
    render_node: str
    memory_bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a module's result."""
        return asdict(self)


def find_gpus(sysfs: Path = Path("/sys")) -> list[Gpu]:
    """Return the discrete Intel GPUs under ``sysfs``, in PCI order; integrated and unknown ones are left out."""
    devices = sysfs / "bus/pci/devices"
    if not devices.is_dir():
        return []
    found = []
    for device in sorted(devices.iterdir()):
        if _read(device / "vendor") != INTEL_VENDOR or _read(device / "class")[:6] not in DISPLAY_CLASSES:
            continue
        device_id = _read(device / "device").removeprefix("0x").lower()
        if device_id not in GPUS:
            continue
        family, name = GPUS[device_id]
        driver = device / "driver"
        found.append(
            Gpu(
                address=device.name,
                id=f"8086:{device_id}",
                name=name,
                family=family,
                driver=driver.resolve().name if driver.exists() else "",
                render_node=_render_node(device, sysfs.parent),
                memory_bytes=_memory(device, device_id),
            )
        )
    return found


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


def secure_boot(root: Path = Path("/")) -> bool:
    """Tell whether UEFI Secure Boot is on; the variable's fifth byte, after four of attributes, is its value."""
    variable = root / "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    try:
        return variable.read_bytes()[4:5] == b"\x01"
    except OSError:
        return False


def _render_node(device: Path, root: Path) -> str:
    nodes = sorted((device / "drm").glob("renderD*"))
    if not nodes:
        return ""
    stable = f"dev/dri/by-path/pci-{device.name}-render"
    return f"/{stable}" if (root / stable).exists() else f"/dev/dri/{nodes[0].name}"


def _memory(device: Path, device_id: str) -> int:
    """Local memory in bytes: what the driver says, else the size of the memory BAR where it is resized to cover all."""
    for total in sorted((device / "drm").glob("card*/lmem_total_bytes")):
        return int(_read(total) or 0)
    # resource lists start, end and flags of each BAR; BAR 2 maps local memory. Without resizable BAR it is a
    # 256 MiB window, which says nothing about the memory behind it.
    lines = _read(device / "resource").splitlines()
    if len(lines) > 2:
        start, end, _flags = (int(field, 16) for field in lines[2].split())
        size = end - start + 1 if end else 0
        if size > 256 * 1024**2:
            return min(size, _ODD_SIZES[device_id] * 1024**3) if device_id in _ODD_SIZES else size
    return 0


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
