"""GPU fixtures: a tree in place of /sys/bus/pci, and device nodes without a driver behind them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig.host import write

INTEL = 0x8086
#: Device ids of Data Center GPU Max, whose PCI class is "display controller"; that of the others is "VGA controller".
DISPLAY_CLASS = range(0x0B60, 0x0BF0)


@dataclass(frozen=True)
class Gpu:
    """One fixture: PCI device id, local memory in bytes, name of the bound driver ("" for none)."""

    device: int
    memory: int
    driver: str

    @classmethod
    def parse(cls, entry: Mapping[str, Any]) -> Gpu:
        """Make a GPU from an entry ``{id: "56a0", memory: 17179869184, driver: i915}``."""
        return cls(int(str(entry["id"]), 16), int(entry.get("memory", 0)), str(entry.get("driver", "")))

    @property
    def pci_class(self) -> int:
        """The 24-bit PCI class code."""
        flex = 0x56C0 <= self.device <= 0x56C2
        return 0x038000 if self.device in DISPLAY_CLASS or flex else 0x030000


def write_tree(folder: Path, gpus: Sequence[Gpu]) -> None:
    """Write the PCI devices of a node: its GPUs, each behind its own bus, with sysfs's files about them.

    As in sysfs the entries of ``devices`` are links (hwinfo needs that); their targets are in ``fixture``.
    """
    for index, card in enumerate(gpus):
        device = folder / "fixture" / f"0000:{3 + index * 4:02x}:00.0"
        bar_size = max(card.memory, 1 << 28)
        bar2 = 0x4000000000 + index * bar_size
        files = {
            "vendor": f"{INTEL:#06x}",
            "device": f"{card.device:#06x}",
            "subsystem_vendor": f"{INTEL:#06x}",
            "subsystem_device": "0x1020",
            "class": f"{card.pci_class:#08x}",
            "revision": "0x08",
            "irq": str(150 + index),
            "enable": "1",
            "numa_node": "-1",
            "boot_vga": "1" if index == 0 else "0",
            "current_link_speed": "2.5 GT/s PCIe",
            "current_link_width": "1",
            "max_link_speed": "16.0 GT/s PCIe",
            "max_link_width": "16",
            "modalias": f"pci:v{INTEL:08X}d{card.device:08X}sv{INTEL:08X}sd00001020"
            f"bc{card.pci_class >> 16:02X}sc{card.pci_class >> 8 & 0xFF:02X}i00",
            "resource": "\n".join(
                [
                    f"{0x82000000 + index * 0x2000000:#018x} {0x82FFFFFF + index * 0x2000000:#018x} 0x0000000000140204",
                    f"{0:#018x} {0:#018x} 0x0000000000000000",
                    f"{bar2:#018x} {bar2 + bar_size - 1:#018x} 0x000000000014220c",
                ]
            ),
            "uevent": f"DRIVER={card.driver}\n" * bool(card.driver)
            + f"PCI_CLASS={card.pci_class:X}\nPCI_ID={INTEL:04X}:{card.device:04X}\nPCI_SLOT_NAME={device.name}",
        }
        for name, text in files.items():
            write(device / name, f"{text}\n")
        (device / "config").write_bytes(_config_space(card))
        _link(folder / "devices" / device.name, f"../fixture/{device.name}")
        if card.driver:
            _bind(device, card, index)


def write_device_unit(root: Path, gpus: Sequence[Gpu]) -> None:
    """Make the node create its /dev/dri nodes at every boot, as udev does on a real machine."""
    lines = []
    for index, card in enumerate(gpus):
        if card.driver:
            lines += [
                f"ExecStart=mknod --mode=660 /dev/dri/card{index} c 226 {index}",
                f"ExecStart=mknod --mode=660 /dev/dri/renderD{128 + index} c 226 {128 + index}",
                f"ExecStart=chgrp video /dev/dri/card{index}",
                f"ExecStart=chgrp render /dev/dri/renderD{128 + index}",
            ]
    if not lines:
        return
    write(
        root / "etc/systemd/system/xpu-rig-gpu.service",
        "[Unit]\nDescription=GPU device nodes (xpu.fleet test fixture)\nDefaultDependencies=no\n"
        "Before=sysinit.target\n\n[Service]\nType=oneshot\nRemainAfterExit=yes\n"
        "ExecStart=mkdir -p -m 755 /dev/dri\n" + "\n".join(lines) + "\n",
    )
    _link(root / "etc/systemd/system/sysinit.target.wants/xpu-rig-gpu.service", "../xpu-rig-gpu.service")


def _bind(device: Path, card: Gpu, index: int) -> None:
    driver = device.parents[1] / "drivers" / card.driver
    driver.mkdir(parents=True, exist_ok=True)
    _link(driver / device.name, f"../../fixture/{device.name}")
    _link(device / "driver", f"../../drivers/{card.driver}")
    drm = device / "drm"
    write(drm / f"renderD{128 + index}/dev", f"226:{128 + index}\n")
    write(drm / f"card{index}/dev", f"226:{index}\n")
    write(drm / f"card{index}/lmem_total_bytes", f"{card.memory}\n")


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _config_space(card: Gpu) -> bytes:
    """Return the first 64 bytes of PCI configuration space, which hwinfo and lspci read."""
    head = struct.pack("<HHHHBBBB", INTEL, card.device, 0x0007, 0x0010, 0x08, 0, 0, 0)
    code = bytes([card.pci_class & 0xFF, card.pci_class >> 8 & 0xFF, card.pci_class >> 16])
    header = bytearray(64)
    header[:12] = head
    header[9:12] = code
    header[0x2C:0x30] = struct.pack("<HH", INTEL, 0x1020)
    return bytes(header)
