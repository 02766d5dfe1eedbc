"""GPUs are found in fixture sysfs trees."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.gpus import GPUS, find_gpus, is_container, secure_boot


def add_device(sysfs: Path, address: str, device: str, *, vendor: str = "0x8086", pci_class: str = "0x030000") -> Path:
    path = sysfs / "bus/pci/devices" / address
    path.mkdir(parents=True)
    (path / "vendor").write_text(f"{vendor}\n")
    (path / "device").write_text(f"0x{device}\n")
    (path / "class").write_text(f"{pci_class}\n")
    return path


def test_an_arc_card_is_found_with_driver_node_and_memory(tmp_path: Path) -> None:
    device = add_device(tmp_path, "0000:03:00.0", "56a0")
    (tmp_path / "bus/pci/drivers/i915").mkdir(parents=True)
    (device / "driver").symlink_to(tmp_path / "bus/pci/drivers/i915")
    (device / "drm/renderD128").mkdir(parents=True)
    (device / "drm/card0").mkdir()
    (device / "drm/card0/lmem_total_bytes").write_text("17179869184\n")
    (gpu,) = find_gpus(tmp_path)
    assert gpu.as_dict() == {
        "address": "0000:03:00.0",
        "id": "8086:56a0",
        "name": "Intel Arc A770",
        "family": "arc",
        "driver": "i915",
        "render_node": "/dev/dri/renderD128",
        "memory_bytes": 16 * 1024**3,
    }


def test_a_render_node_is_named_by_its_pci_address_where_udev_does(tmp_path: Path) -> None:
    (add_device(tmp_path / "sys", "0000:03:00.0", "56a0") / "drm/renderD129").mkdir(parents=True)
    (tmp_path / "dev/dri/by-path").mkdir(parents=True)
    (tmp_path / "dev/dri/by-path/pci-0000:03:00.0-render").touch()
    assert find_gpus(tmp_path / "sys")[0].render_node == "/dev/dri/by-path/pci-0000:03:00.0-render"


def test_integrated_graphics_other_vendors_and_other_classes_are_left_out(tmp_path: Path) -> None:
    add_device(tmp_path, "0000:00:02.0", "a780")
    add_device(tmp_path, "0000:01:00.0", "56a0", vendor="0x10de")
    add_device(tmp_path, "0000:02:00.0", "56a0", pci_class="0x040300")
    assert find_gpus(tmp_path) == []


def test_a_data_center_card_is_found_by_its_display_class_and_gpus_come_in_pci_order(tmp_path: Path) -> None:
    add_device(tmp_path, "0000:81:00.0", "56C0", pci_class="0x038000")
    add_device(tmp_path, "0000:21:00.0", "0bd5", pci_class="0x038000")
    assert [(gpu.address, gpu.family) for gpu in find_gpus(tmp_path)] == [
        ("0000:21:00.0", "max"),
        ("0000:81:00.0", "flex"),
    ]


@pytest.mark.parametrize(
    ("device_id", "end", "gibibytes"),
    [
        ("56a0", "0x00000043ffffffff", 16),
        ("56a0", "0x000000400fffffff", 0),
        ("56a5", "0x00000041ffffffff", 6),  # an 8 GiB BAR before 6 GiB
        ("0bda", "0x0000004fffffffff", 48),
    ],
)
def test_a_resized_bar_tells_the_memory_and_a_window_does_not(
    tmp_path: Path, device_id: str, end: str, gibibytes: int
) -> None:
    device = add_device(tmp_path, "0000:03:00.0", device_id)
    zero = "0x0000000000000000 0x0000000000000000 0x0000000000000000"
    (device / "resource").write_text(f"{zero}\n{zero}\n0x0000004000000000 {end} 0x000000000014220c\n")
    assert find_gpus(tmp_path)[0].memory_bytes == gibibytes * 1024**3


def test_every_id_of_the_facts_has_its_family() -> None:
    def ids(first: int, last: int) -> set[str]:
        return {f"{number:04x}" for number in range(first, last + 1)}

    arc = ids(0x5690, 0x5697) | ids(0x56A0, 0x56A6) | {"56af"} | ids(0x56B0, 0x56B3) | ids(0x56BA, 0x56BF)
    data_center = {"0b69", "0b6e", "0bd0", "0be0", "0be1", "0be5"} | ids(0x0BD4, 0x0BDB)
    assert {device for device, (family, _) in GPUS.items() if family == "arc"} == arc
    assert {device for device, (family, _) in GPUS.items() if family == "flex"} == {"56c0", "56c1", "56c2"}
    assert {device for device, (family, _) in GPUS.items() if family == "max"} == data_center


def test_a_machine_without_pci_has_no_gpus(tmp_path: Path) -> None:
    assert find_gpus(tmp_path) == []


@pytest.mark.parametrize("marker", ["run/systemd/container", ".dockerenv", "run/.containerenv"])
def test_containers_are_known_by_their_markers(tmp_path: Path, marker: str) -> None:
    assert not is_container(tmp_path)
    (tmp_path / marker).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / marker).touch()
    assert is_container(tmp_path)


def test_containers_are_known_by_the_environment_of_init(tmp_path: Path) -> None:
    (tmp_path / "proc/1").mkdir(parents=True)
    (tmp_path / "proc/1/environ").write_bytes(b"TERM=linux\0container=lxc\0")
    assert is_container(tmp_path)


@pytest.mark.parametrize(("value", "expected"), [(b"\x06\0\0\0\x01", True), (b"\x06\0\0\0\0", False)])
def test_secure_boot_is_read_from_its_variable(tmp_path: Path, value: bytes, expected: bool) -> None:
    assert not secure_boot(tmp_path)
    directory = tmp_path / "sys/firmware/efi/efivars"
    directory.mkdir(parents=True)
    (directory / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(value)
    assert secure_boot(tmp_path) is expected
