"""GPUs are found in fixture sysfs trees."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.answer import admitted_gpus
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpu_ids import GPUS, INTEGRATED, OTHER
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpus import (
    all_gpus,
    find_gpus,
    is_container,
    served_gpus,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.secure_boot import secure_boot
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

LISTS = Path(__file__).parents[2] / "support/gpu_ids"
#: Lists of discrete devices, by the family of their ids; other devices are integrated.
DISCRETE = {
    **{"DG1": OTHER, "Dg1": OTHER, "CRI": OTHER, "Cri": OTHER},
    **{"ATS_M150": "flex", "ATS_M75": "flex", "PVC": "max", "Pvc": "max"},
    **{"BMG_G21": "arc-b", "BMG": "arc-b", "Bmg": "arc-b"},
    **{f"DG2_G{chip}_{form}": "arc" for chip in (10, 11, 12) for form in "DEM"},
}


def public_ids(source: str) -> dict[str, list[str]]:
    """The ids of a public list, by the names of its parts."""
    lines = (LISTS / f"{source}.txt").read_text().splitlines()
    parts = (line.partition(": ") for line in lines if not line.startswith("#"))
    return {name: ids.split() for name, _, ids in parts}


def gpu_info(root: Path) -> dict[str, Any]:
    """What the module returns; all of it comes through the controller's door."""
    result = run_module("gpu_info", root=str(root))
    assert result.get("failed") or result == {**result, **admitted_gpus(result)}
    return result


def add_device(root: Path, address: str, device: str, *, vendor: str = "0x8086", **more: Any) -> Path:
    """Add a PCI device; its other files by name, below bridges by their addresses."""
    above = more.pop("below", ())
    path = root / "sys/devices/pci0000:00" / "/".join(above) / address
    path.mkdir(parents=True)
    files = {"vendor": vendor, "device": f"0x{device}", "class": "0x030000", **more}
    write(path, **files)
    listed = root / "sys/bus/pci/devices" / address
    listed.parent.mkdir(parents=True, exist_ok=True)
    listed.symlink_to(path)
    return path


def write(directory: Path, **files: str) -> None:
    for name, text in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")


def bind(root: Path, device: Path, driver: str, **module: str) -> None:
    """Bind a device to a driver, with the files of its module."""
    home = root / "sys/bus/pci/drivers" / driver
    home.mkdir(parents=True, exist_ok=True)
    (device / "driver").symlink_to(home)
    write(root / "sys/module" / driver, **{"taint": "", **module})
    if not (home / "module").exists():
        (home / "module").symlink_to(root / "sys/module" / driver)


def link(width: int, maximum: int, speed: str, fastest: str) -> dict[str, str]:
    return {
        "current_link_width": str(width),
        "max_link_width": str(maximum),
        "current_link_speed": f"{speed} GT/s PCIe",
        "max_link_speed": f"{fastest} GT/s PCIe",
    }


def test_an_arc_card_behind_its_own_switch_is_told_in_full(tmp_path: Path) -> None:
    write(tmp_path / "proc/sys/kernel", osrelease="5.19.0-41-generic")
    bridge = {"class": "0x060400"}
    add_device(tmp_path, "0000:00:01.0", "460d", **bridge, **link(8, 16, "16.0", "32.0"))
    add_device(tmp_path, "0000:01:00.0", "4fa0", below=["0000:00:01.0"], **bridge, **link(8, 16, "16.0", "16.0"))
    switch = ["0000:00:01.0", "0000:01:00.0"]
    add_device(tmp_path, "0000:02:01.0", "4fa4", below=switch, **bridge, **link(1, 1, "2.5", "2.5"))
    device = add_device(
        tmp_path,
        "0000:03:00.0",
        "56a0",
        below=[*switch, "0000:02:01.0"],
        **link(1, 1, "2.5", "2.5"),
        numa_node="1",
        sriov_totalvfs="31",
        sriov_numvfs="0",
        modalias="pci:v00008086d000056A0sv00008086sd00001020bc03sc00i00",
        resource="\n".join(["0x0 0x0 0x0"] * 2 + ["0x4000000000 0x43ffffffff 0x14220c"]),
    )
    bind(tmp_path, device, "i915", version="1.23.5.19", taint="OE")
    (device / "drm/renderD128").mkdir(parents=True)
    write(device / "drm/card1", lmem_total_bytes="17095983104")
    debug = tmp_path / "sys/kernel/debug/dri/1/gt0/uc"
    write(
        debug, guc_info="GuC firmware: i915/dg2_guc_70.bin\n\tstatus: RUNNING\n\tversion: wanted 70.4.1, found 70.5.1"
    )
    write(debug, huc_info="HuC firmware: i915/dg2_huc_gsc.bin\n\tstatus: RUNNING\n\tversion: found 7.10.3")
    modules = tmp_path / "lib/modules/5.19.0-41-generic"
    write(
        modules, **{"modules.alias": "alias pci:v00008086d000056A0sv*sd*bc03sc*i* i915\nalias pci:v*d*sv*sd*bc04* snd"}
    )

    (gpu,) = find_gpus(tmp_path)
    behind = {"address": "0000:03:00.0", "width": 1, "maximum_width": 1, "speed": 2.5, "maximum_speed": 2.5}
    slot = {"address": "0000:01:00.0", "width": 8, "maximum_width": 16, "speed": 16.0, "maximum_speed": 16.0}
    assert gpu.as_dict() == {
        "address": "0000:03:00.0",
        "id": "8086:56a0",
        "name": "Intel Arc A770",
        "family": "arc",
        "driver": "i915",
        "driver_version": "1.23.5.19",
        "driver_out_of_tree": True,
        "render_node": "/dev/dri/renderD128",
        "card_node": "/dev/dri/card1",
        "memory_bytes": 17095983104,
        "memory_bar_bytes": 16 * 1024**3,
        "resizable_bar": True,
        "numa_node": 1,
        "link": {**behind, "reduced": False},
        "slot_link": {**slot, "reduced": True},
        "firmware": {
            "guc": {"file": "i915/dg2_guc_70.bin", "status": "RUNNING", "version": "70.5.1"},
            "huc": {"file": "i915/dg2_huc_gsc.bin", "status": "RUNNING", "version": "7.10.3"},
        },
        "virtual_functions": 0,
        "maximum_virtual_functions": 31,
        "virtual_function_of": "",
        "kernel_modules": ["i915"],
        "lent": "",
        "uncovered": False,
        "blocked": [],
    }


def test_a_card_without_a_switch_has_the_link_of_its_slot(tmp_path: Path) -> None:
    bridge = {"class": "0x060400"}
    add_device(tmp_path, "0000:00:01.0", "460d", **bridge, **link(16, 16, "16.0", "32.0"))
    add_device(
        tmp_path,
        "0000:01:00.0",
        "0bd5",
        below=["0000:00:01.0"],
        **{"class": "0x038000"},
        **link(16, 16, "16.0", "32.0"),
    )
    (gpu,) = find_gpus(tmp_path)
    assert gpu.slot_link == gpu.link
    assert gpu.link and (gpu.link.address, gpu.link.reduced) == ("0000:01:00.0", True)


def test_the_switch_of_a_chassis_is_not_taken_for_a_cards_own(tmp_path: Path) -> None:
    bridge = {"class": "0x060400"}
    add_device(tmp_path, "0000:00:01.0", "460d", **bridge)
    add_device(tmp_path, "0000:01:00.0", "8725", vendor="0x10b5", below=["0000:00:01.0"], **bridge)
    above = ["0000:00:01.0", "0000:01:00.0"]
    add_device(tmp_path, "0000:02:00.0", "8725", vendor="0x10b5", below=above, **bridge, **link(8, 8, "8.0", "8.0"))
    add_device(tmp_path, "0000:03:00.0", "0bd5", below=[*above, "0000:02:00.0"], **link(8, 16, "8.0", "32.0"))
    (gpu,) = find_gpus(tmp_path)
    assert gpu.slot_link and gpu.slot_link.address == "0000:03:00.0"


def test_a_driver_of_the_kernels_own_tree_has_the_kernels_version(tmp_path: Path) -> None:
    write(tmp_path / "proc/sys/kernel", osrelease="6.8.0-45-generic")
    bind(tmp_path, add_device(tmp_path, "0000:03:00.0", "e20b"), "xe")
    (gpu,) = find_gpus(tmp_path)
    assert (gpu.driver, gpu.driver_version, gpu.driver_out_of_tree) == ("xe", "6.8.0-45-generic", False)


def test_drivers_that_are_built_into_the_kernel_claim_devices_too(tmp_path: Path) -> None:
    write(tmp_path / "proc/sys/kernel", osrelease="6.8.0")
    add_device(tmp_path, "0000:03:00.0", "e20b", modalias="pci:v00008086d0000E20Bsv00008086sd00000000bc03sc00i00")
    assert find_gpus(tmp_path)[0].kernel_modules is None
    builtin = "drm.license=GPL\0xe.alias=pci:v00008086d0000E20Bsv*sd*bc03sc*i*\0"
    write(tmp_path / "lib/modules/6.8.0", **{"modules.builtin.modinfo": builtin})
    assert find_gpus(tmp_path)[0].kernel_modules == ["xe"]


def test_firmware_in_the_words_of_xe_is_read_by_pci_address(tmp_path: Path) -> None:
    add_device(tmp_path, "0000:03:00.0", "e20b")
    text = "GuC firmware: xe/bmg_guc_70.bin\n\tstatus: TRANSFERRED\n\twanted release version 70.29.2"
    text += "\n\tfound release version 70.36.0\n\tfound compatibility version 1.18.0"
    write(tmp_path / "sys/kernel/debug/dri/0000:03:00.0/gt0/uc", guc_info=text)
    assert find_gpus(tmp_path)[0].firmware == {
        "guc": {"file": "xe/bmg_guc_70.bin", "status": "TRANSFERRED", "version": "70.36.0"}
    }


def test_nodes_are_named_by_their_pci_address_where_udev_does(tmp_path: Path) -> None:
    device = add_device(tmp_path, "0000:03:00.0", "56a0")
    (device / "drm/renderD129").mkdir(parents=True)
    (device / "drm/card1/card1-DP-1").mkdir(parents=True)
    (tmp_path / "dev/dri/by-path").mkdir(parents=True)
    for kind in ("render", "card"):
        (tmp_path / f"dev/dri/by-path/pci-0000:03:00.0-{kind}").touch()
    (gpu,) = find_gpus(tmp_path)
    assert gpu.render_node == "/dev/dri/by-path/pci-0000:03:00.0-render"
    assert gpu.card_node == "/dev/dri/by-path/pci-0000:03:00.0-card"


def test_what_the_roles_do_not_use_is_reported_apart(tmp_path: Path) -> None:
    add_device(tmp_path, "0000:00:02.0", "a780")
    add_device(tmp_path, "0000:01:00.0", "56a0", vendor="0x10de")
    add_device(tmp_path, "0000:02:00.0", "56a0", **{"class": "0x040300"})
    add_device(tmp_path, "0000:04:00.0", "4905", **{"class": "0x038000"})
    add_device(tmp_path, "0000:06:00.0", "674c", **{"class": "0x030200"})
    add_device(tmp_path, "0000:07:00.0", "2000", vendor="0x1a03")
    result = gpu_info(tmp_path)
    assert (result["gpus"], result["families"]) == ([], [])
    assert [(gpu["address"], gpu["family"], gpu["name"]) for gpu in result["others"]] == [
        ("0000:00:02.0", "integrated", "Intel UHD Graphics 770 (Raptor Lake-S)"),
        ("0000:01:00.0", "other", "display controller 10de:56a0"),
        ("0000:04:00.0", "other", "Intel Iris Xe MAX Graphics"),
        ("0000:06:00.0", "other", "Intel Data Center GPU (Crescent Island)"),
        ("0000:07:00.0", "other", "display controller 1a03:2000"),
    ]
    # Nobody expects another vendor's card, or a board's own display, to be served on.
    assert [gpu["address"] for gpu in result["others"] if gpu["uncovered"]] == ["0000:04:00.0", "0000:06:00.0"]


@pytest.mark.parametrize(
    ("os_release", "distribution", "release", "codename"),
    [
        (
            'PRETTY_NAME="Ubuntu 22.04.5 LTS"\nNAME="Ubuntu"\nVERSION_ID="22.04"\nVERSION_CODENAME=jammy\nID=ubuntu\n',
            *("Ubuntu", "22.04", "jammy"),
        ),
        (
            "# NAME=x\n\nNAME='Debian GNU/Linux'\nVERSION_ID=\"12\"\nVERSION_CODENAME=bookworm\nID=debian\n",
            *("Debian", "12", "bookworm"),
        ),
        ('NAME="Linux Mint"\nVERSION_ID="21.3"\nID=linuxmint\nID_LIKE="ubuntu debian"\n', "Linux Mint", "21.3", ""),
        ("", "", "", ""),
    ],
)
def test_the_system_is_told_as_ansibles_facts_name_it(
    tmp_path: Path, os_release: str, distribution: str, release: str, codename: str
) -> None:
    write(tmp_path / "proc/sys/kernel", osrelease="5.19.0-41-generic\n")
    if os_release:
        write(tmp_path / "etc", **{"os-release": os_release})
    system = gpu_info(tmp_path)["system"]
    named = {"distribution": distribution, "release": release, "codename": codename}
    assert system == {**named, "kernel": "5.19.0-41-generic", "architecture": os.uname().machine}


def test_a_damaged_os_release_is_named(tmp_path: Path) -> None:
    write(tmp_path / "etc", **{"os-release": 'NAME="Ubuntu\n'})
    result = gpu_info(tmp_path)
    assert result["failed"]
    assert result["msg"] == "/etc/os-release is damaged (No closing quotation); restore it."


def test_functions_for_virtual_machines_are_not_the_nodes_own(tmp_path: Path) -> None:
    card = add_device(tmp_path, "0000:03:00.0", "56c0", sriov_numvfs="1", sriov_totalvfs="31")
    (add_device(tmp_path, "0000:03:00.1", "56c0") / "physfn").symlink_to(card)
    whole, function = all_gpus(tmp_path)
    assert (whole.used, whole.virtual_functions, whole.maximum_virtual_functions) == (True, 1, 31)
    assert (function.used, function.virtual_function_of) == (False, "0000:03:00.0")


def test_a_node_of_several_families_has_all_its_cards_in_pci_order(tmp_path: Path) -> None:
    add_device(tmp_path, "0000:81:00.0", "56C0", **{"class": "0x038000"})
    add_device(tmp_path, "0000:21:00.0", "0bd5", **{"class": "0x038000"})
    result = gpu_info(tmp_path)
    assert [(gpu["address"], gpu["family"]) for gpu in result["gpus"]] == [
        ("0000:21:00.0", "max"),
        ("0000:81:00.0", "flex"),
    ]
    assert result["families"] == ["flex", "max"]


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
    zero = "0x0000000000000000 0x0000000000000000 0x0000000000000000"
    add_device(
        tmp_path,
        "0000:03:00.0",
        device_id,
        resource=f"{zero}\n{zero}\n0x0000004000000000 {end} 0x000000000014220c",
    )
    (gpu,) = find_gpus(tmp_path)
    assert (gpu.memory_bytes, gpu.resizable_bar) == (gibibytes * 1024**3, gibibytes > 0)


def test_every_id_of_the_facts_has_its_family() -> None:
    def ids(first: int, last: int) -> set[str]:
        return {f"{number:04x}" for number in range(first, last + 1)}

    arc = ids(0x5690, 0x5697) | ids(0x56A0, 0x56A6) | {"56af"} | ids(0x56B0, 0x56B3) | ids(0x56BA, 0x56BF)
    data_center = {"0b69", "0b6e", "0bd0", "0be0", "0be1", "0be5"} | ids(0x0BD4, 0x0BDB)
    assert {device for device, (family, _) in GPUS.items() if family == "arc"} == arc
    assert {device for device, (family, _) in GPUS.items() if family == "flex"} == {"56c0", "56c1", "56c2"}
    assert {device for device, (family, _) in GPUS.items() if family == "max"} == data_center


@pytest.mark.parametrize("source", ["linux", "compute-runtime"])
def test_every_id_of_the_public_lists_is_known_and_of_the_right_family(source: str) -> None:
    lists = public_ids(source)
    assert sum(len(ids) for ids in lists.values()) > 150
    assert [f"{name} {device}" for name, ids in lists.items() for device in ids if device not in GPUS] == []
    wrong = [
        f"{name} {device}: {GPUS[device][0]}"
        for name, ids in lists.items()
        for device in ids
        # compute-runtime has Arc A, its samples and Flex in one list.
        if name != "Dg2" and GPUS[device][0] != DISCRETE.get(name, INTEGRATED)
    ]
    assert wrong == []


def test_no_id_is_in_this_table_alone() -> None:
    listed = {
        device for source in ("linux", "compute-runtime") for ids in public_ids(source).values() for device in ids
    }
    assert set(GPUS) - listed == set()


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


SHIM = "605dab50-e046-4300-abb6-3dd810dd8b23"


def secured(root: Path) -> Path:
    directory = root / "sys/firmware/efi/efivars"
    directory.mkdir(parents=True)
    (directory / "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c").write_bytes(b"\x06\0\0\0\x01")
    return directory


@pytest.mark.parametrize(("value", "expected"), [(b"\x06\0\0\0\x01", False), (b"\x06\0\0\0\0", True)])
def test_secure_boot_is_off_where_shims_validation_is(tmp_path: Path, value: bytes, expected: bool) -> None:
    (secured(tmp_path) / f"MokSBStateRT-{SHIM}").write_bytes(value)
    assert secure_boot(tmp_path) is expected


@pytest.mark.parametrize("certificate", ["var/lib/shim-signed/mok/MOK.der", "var/lib/dkms/mok.pub"])
@pytest.mark.parametrize(
    "place", [f"sys/firmware/efi/efivars/MokListRT1-{SHIM}", "sys/firmware/efi/mok-variables/MokListRT"]
)
def test_secure_boot_takes_modules_that_an_enrolled_key_signs(tmp_path: Path, certificate: str, place: str) -> None:
    secured(tmp_path)
    own, keys = tmp_path / certificate, tmp_path / place
    for path in (own, keys):
        path.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(b"\x30\x82own certificate")
    keys.write_bytes(b"\x06\0\0\0list\x30\x82another certificate")
    assert secure_boot(tmp_path)
    keys.write_bytes(b"\x06\0\0\0list\x30\x82another certificate\x30\x82own certificateand more")
    assert not secure_boot(tmp_path)


def given(root: Path, **more: str) -> Path:
    return add_device(root, "0000:03:00.0", "56c0", **more)


@pytest.mark.parametrize("driver", ["vfio-pci", "pciback", "uio_pci_generic", "pci-stub"])
def test_a_card_that_another_driver_holds_is_lent(tmp_path: Path, driver: str) -> None:
    bind(tmp_path, given(tmp_path), driver)
    result = gpu_info(tmp_path)
    assert (result["gpus"], result["others"], result["families"]) == ([], [], [])
    assert [card["lent"] for card in result["lent"]] == [f"bound to {driver}"]


@pytest.mark.parametrize(
    ("override", "lent"),
    [("vfio-pci", "kept for vfio-pci (driver_override)"), ("none", "kept for none (driver_override)"), ("(null)", "")],
)
def test_a_card_that_is_kept_from_its_driver_is_lent(tmp_path: Path, override: str, lent: str) -> None:
    given(tmp_path, driver_override=override)
    (card,) = find_gpus(tmp_path)
    assert (card.lent, card.free) == (lent, not lent)


@pytest.mark.parametrize(
    ("driver", "bar", "address", "family"),
    [
        ("xe", "0x0 0x0 0x0", "0000:03:00.0", "unknown"),
        ("i915", "0x0 0x0 0x0", "0000:03:00.0", "unknown"),
        ("", "0x6000000000 0x67ffffffff 0x14220c", "0000:03:00.0", "unknown"),
        ("xe", "0x6000000000 0x67ffffffff 0x14220c", "0000:00:05.0", "unknown"),  # in a virtual machine
        ("xe", "0x6000000000 0x67ffffffff 0x14220c", "0000:00:02.0", "unknown"),
        ("xe", "0x6000000000 0x600fffffff 0x14220c", "0000:00:02.0", "integrated"),
        ("", "0x6000000000 0x600fffffff 0x14220c", "0000:00:02.1", "integrated"),
        # Without memory and without a driver too: a kernel that is older than the card gives it neither.
        ("", "0x0 0x0 0x0", "0000:03:00.0", "unknown"),
        ("", "0x0 0x0 0x0", "0000:00:02.0", "integrated"),
    ],
)
def test_a_card_newer_than_the_lists_is_known_as_one(
    tmp_path: Path, driver: str, bar: str, address: str, family: str
) -> None:
    device = add_device(tmp_path, address, "e2a7", resource="\n".join(["0x0 0x0 0x0"] * 2 + [bar]))
    if driver:
        bind(tmp_path, device, driver)
    (card,) = all_gpus(tmp_path)
    assert (card.family, card.used) == (family, family == "unknown")


def test_what_instances_were_given_is_known_when_it_is_gone(tmp_path: Path) -> None:
    assert served_gpus(tmp_path) == []
    for name, text in {
        "xpuserve@1": "# Managed.\n# GPU 0000:07:00.0 and no other. An instance\n[Service]",
        "xpuserve@0": "# GPU 0000:03:00.0 and no other.\n[Service]",
        "xpuserve@2": "[Service]\nDeviceAllow=/dev/dri/renderD128 rw",
        "other@0": "# GPU 0000:09:00.0 and no other.",
    }.items():
        write(tmp_path / f"etc/systemd/system/{name}.service.d", **{"gpu.conf": text})
    assert served_gpus(tmp_path) == ["0000:03:00.0", "0000:07:00.0"]
    found = gpu_info(tmp_path)
    assert (found["gpus"], found["served"]) == ([], ["0000:03:00.0", "0000:07:00.0"])


@pytest.mark.parametrize("device", ["a780", "46d0", "64a0", "b080", "0102"])
def test_graphics_of_a_processor_are_no_card_wherever_they_are(tmp_path: Path, device: str) -> None:
    add_device(tmp_path, "0000:00:02.0", device)
    add_device(tmp_path, "0000:05:00.0", device)  # as a virtual machine may have them
    result = gpu_info(tmp_path)
    assert [gpu["family"] for gpu in result["others"]] == ["integrated", "integrated"]
    assert not any(gpu["uncovered"] for gpu in result["others"])


@pytest.mark.parametrize(
    ("override", "blocked"), [("vfio-pci", True), ("pci-stub", True), ("(null)", False), ("i915", False)]
)
def test_an_override_that_is_not_in_force_yet_is_told(tmp_path: Path, override: str, blocked: bool) -> None:
    device = add_device(tmp_path, "0000:03:00.0", "56a0", driver_override=override)
    bind(tmp_path, device, "i915")
    (card,) = all_gpus(tmp_path)
    assert card.lent == ""
    assert card.blocked == ([f"driver_override in sysfs is {override}"] if blocked else [])
