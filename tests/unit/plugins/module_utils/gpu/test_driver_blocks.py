"""Settings that prevent a graphics driver from binding are found in every place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.driver_blocks import DriverBlocks
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import (
    StackError,
)
from ansible_collections.xpu.fleet.plugins.module_utils.stacks import (
    StackRequest,
    resolve,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.stack_nodes import STACKS, gpu, node


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    "word",
    [
        "nomodeset",
        "i915.modeset=0",
        "modprobe.blacklist=nouveau,i915",
        "module_blacklist=i915,xe",
        "rd.driver.blacklist=i915",
        "initcall_blacklist=simpledrm_platform_driver_init,i915_init",
        "i915.force_probe=!56a0",
        "i915.force_probe=!*",
        "vfio-pci.ids=10de:2204,8086:56A0",
        "vfio_pci.ids=8086:56a0:8086:1020",
        "pci-stub.ids=8086:56a0",
        'module_blacklist="i915,xe"',
    ],
)
def test_a_parameter_of_the_kernel_is_found(tmp_path: Path, word: str) -> None:
    write(tmp_path / "proc/cmdline", f"BOOT_IMAGE=/vmlinuz ro quiet {word} panic=30")
    plain = word.replace('"', "")
    assert DriverBlocks(tmp_path).of(["i915"], "56a0") == [f"{plain} on the kernel's command line"]


@pytest.mark.parametrize(
    "word",
    [
        "quiet",
        "nomodeset=1x",
        "i915.modeset=1",
        "xe.modeset=0",
        "modprobe.blacklist=nouveau,i915_other",
        "initcall_blacklist=simpledrm_init",
        "i915.force_probe=56a0",
        "i915.force_probe=!56c0",
        "vfio-pci.ids=8086:56c0",
        "xe.force_probe=!56a0",
    ],
)
def test_a_parameter_that_keeps_nothing_away_is_not(tmp_path: Path, word: str) -> None:
    write(tmp_path / "proc/cmdline", f"BOOT_IMAGE=/vmlinuz ro {word}")
    assert DriverBlocks(tmp_path).of(["i915"], "56a0") == []


@pytest.mark.parametrize(
    "line",
    [
        "blacklist i915",
        "  blacklist   i915  # for passthrough",
        "install i915 /bin/false",
        "install i915 /bin/true",
        "install i915 :",
        "options i915 modeset=0",
        "options i915 enable_guc=3 \\\n  force_probe=!56a0",
        "options vfio-pci ids=8086:56a0,8086:4f90 disable_vga=1",
        "alias i915 off",
    ],
)
@pytest.mark.parametrize("directory", ["etc/modprobe.d", "usr/lib/modprobe.d", "run/modprobe.d"])
def test_a_setting_of_modprobe_is_found(tmp_path: Path, directory: str, line: str) -> None:
    write(tmp_path / directory / "gpu.conf", f"# left by an earlier set-up\n{line}")
    (reason,) = DriverBlocks(tmp_path).of(["i915"], "56a0")
    assert reason.endswith(f" in /{directory}/gpu.conf")


@pytest.mark.parametrize(
    "line",
    [
        "# blacklist i915",
        "blacklist xe",
        "blacklist i915_hdcp",
        "install i915 /sbin/modprobe --ignore-install i915 && /usr/local/bin/tell",
        "options i915 enable_guc=3",
        "options vfio-pci ids=8086:56c0",
        "softdep i915 pre: mei",
    ],
)
def test_a_setting_that_keeps_nothing_away_is_not(tmp_path: Path, line: str) -> None:
    write(tmp_path / "etc/modprobe.d/gpu.conf", line)
    write(tmp_path / "etc/modprobe.d/gpu.conf.bak", "blacklist i915")
    assert DriverBlocks(tmp_path).of(["i915"], "56a0") == []


def test_a_file_of_etc_takes_the_place_of_one_of_its_name(tmp_path: Path) -> None:
    write(tmp_path / "usr/lib/modprobe.d/gpu.conf", "blacklist i915")
    write(tmp_path / "etc/modprobe.d/gpu.conf", "# nothing")
    assert DriverBlocks(tmp_path).of(["i915"], "56a0") == []


def test_grubs_settings_for_the_next_boot_are_found(tmp_path: Path) -> None:
    write(tmp_path / "etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet splash"')
    write(tmp_path / "etc/default/grub.d/50-gpu.cfg", 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX nomodeset"')
    expected = ["nomodeset in GRUB_CMDLINE_LINUX of /etc/default/grub.d/50-gpu.cfg"]
    assert DriverBlocks(tmp_path).of(["i915"], "56a0") == expected


def test_a_card_of_two_drivers_is_kept_from_both(tmp_path: Path) -> None:
    write(tmp_path / "etc/modprobe.d/gpu.conf", "blacklist xe")
    assert DriverBlocks(tmp_path).of(["i915", "xe"], "e2a7") == []
    assert DriverBlocks(tmp_path).of(["xe"], "e20b") == ["'blacklist xe' in /etc/modprobe.d/gpu.conf"]


BLOCKED: dict[str, Any] = {"blocked": ["nomodeset on the kernel's command line"]}


@pytest.mark.parametrize("system", ["Ubuntu 22.04", "Ubuntu 24.04"])
def test_a_node_whose_card_no_driver_can_bind_to_is_refused(system: str) -> None:
    with pytest.raises(StackError, match=r"nomodeset on the kernel's command line\. Remove that"):
        resolve(STACKS, node(gpu(driver="", **BLOCKED), system=system), StackRequest())
    bound = resolve(STACKS, node(gpu(**BLOCKED), system=system), StackRequest())
    assert any("At the next boot no driver can bind" in warning for warning in bound["warnings"])
    named = resolve(STACKS, node(gpu(driver="", **BLOCKED), system=system), StackRequest(stack="cpu"))
    assert named["warnings"] == []


def test_a_card_without_a_driver_is_refused_where_nothing_would_bring_one() -> None:
    unbound = gpu(driver="")
    with pytest.raises(StackError, match="drivers_probe"):
        resolve(STACKS, node(unbound, system="Ubuntu 24.04"), StackRequest())
    assert resolve(STACKS, node(unbound), StackRequest())["name"] == "arc-647"  # whose modules are built


LENT = gpu(address="0000:07:00.0", driver="vfio-pci", lent="bound to vfio-pci")


def test_a_card_that_is_lent_is_left_alone_and_the_node_served_on_the_other() -> None:
    stack = resolve(STACKS, node(gpu(), LENT), StackRequest())
    assert [card["address"] for card in stack["gpus"]] == ["0000:03:00.0"]
    assert "0000:07:00.0 is bound to vfio-pci" in stack["warnings"][-1]
    served = resolve(STACKS, node(gpu(), LENT, served=["0000:07:00.0"]), StackRequest())
    assert [card["address"] for card in served["lost"]] == ["0000:07:00.0"]


@pytest.mark.parametrize("stack", ["auto", "arc-647"])
def test_a_node_whose_cards_are_all_lent_is_refused(stack: str) -> None:
    with pytest.raises(StackError, match="bound to vfio-pci: the roles do not use such a card"):
        resolve(STACKS, node(LENT), StackRequest(stack=stack))
    assert resolve(STACKS, node(LENT), StackRequest(stack="cpu"))["name"] == "cpu"


def test_a_card_newer_than_the_lists_is_never_quietly_served_on_the_cpu() -> None:
    newer = gpu("e20b", "unknown")
    with pytest.raises(StackError, match=r"\(8086:e20b\).*is newer than this collection's list.*xpu_stack to cpu"):
        resolve(STACKS, node(newer, system="Ubuntu 24.04"), StackRequest())
    assert resolve(STACKS, node(newer, system="Ubuntu 24.04"), StackRequest(stack="cpu"))["name"] == "cpu"


HERE = "0000:03:00.0"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("proc/cmdline", "quiet xen-pciback.hide=(03:00.0)(04:00.0)"),
        ("proc/cmdline", "xen-pciback.hide=(0000:03:00.*)"),
        ("proc/cmdline", "pciback.hide=(0000:03:00.0)"),
        ("etc/modprobe.d/xen.conf", "options xen_pciback hide=(0000:03:00.0)"),
        ("etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet xen-pciback.hide=(03:00.0)"'),
        ("etc/driverctl.d/0000:03:00.0", "vfio-pci"),
        (
            "etc/udev/rules.d/10-vfio.rules",
            'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="0000:03:00.0", ATTR{driver_override}="vfio-pci"',
        ),
        (
            "etc/udev/rules.d/99-stub.rules",
            'SUBSYSTEM=="pci", ATTR{vendor}=="0x8086", ATTR{device}=="0x56A0", ATTR{driver_override}="pci-stub"',
        ),
    ],
)
def test_what_gives_a_card_away_by_its_address_at_the_next_boot_is_found(tmp_path: Path, path: str, text: str) -> None:
    write(tmp_path / path, text)
    blocks = DriverBlocks(tmp_path)
    (reason,) = blocks.of(["i915"], "56a0", HERE)
    assert f"/{path}" in reason or "on the kernel's command line" in reason
    assert blocks.of(["i915", "xe"], "56a0", HERE) == [reason]
    assert blocks.of(["i915"], "56c0", "0000:83:00.0") == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("proc/cmdline", "xen-pciback.hide=(04:00.0) xen-pciback.permissive=1 hide=(03:00.0)"),
        ("etc/modprobe.d/xen.conf", "options xen_pciback passthrough=1\noptions other hide=(0000:03:00.0)"),
        ("etc/driverctl.d/0000:04:00.0", "vfio-pci"),
        ("etc/driverctl.d/0000:03:00.0", "i915"),
        ("etc/driverctl.d/0000:03:00.0", ""),
        ("etc/udev/rules.d/10.rules", '# KERNEL=="0000:03:00.0", ATTR{driver_override}="vfio-pci"'),
        ("etc/udev/rules.d/10.rules", 'KERNEL=="0000:03:00.0", ATTR{driver_override}=="vfio-pci", RUN+="/bin/true"'),
        ("etc/udev/rules.d/10.rules", 'KERNEL=="0000:03:00.0", ATTR{power/control}="auto"'),
    ],
)
def test_what_gives_another_card_away_is_none(tmp_path: Path, path: str, text: str) -> None:
    write(tmp_path / path, text)
    assert DriverBlocks(tmp_path).of(["i915"], "56a0", HERE) == []
