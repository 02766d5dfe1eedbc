"""A kernel out of a stack's range is replaced by one from the distribution's metapackage.

First it is too old, and upgraded through a power cut and a panic; then it is too new, and changed back.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kernel.faults.bench import BOOT_TIMEOUT, Bench
from kernel.faults.catalogue import Stage
from kernel.faults.play import Play, Run
from kernel.faults.state import look
from rig.machine import Machine

META = "linux-generic-hwe-22.04"
#: The suite with a newer kernel, and that kernel.
UPDATES = """\
sed -n 's/ jammy / jammy-updates /p' /etc/apt/sources.list > /etc/apt/sources.list.d/updates.list
apt-get update -qq
apt-cache depends linux-image-generic-hwe-22.04 | sed -n 's/.*Depends: linux-image-\\([0-9].*\\)/\\1/p'
"""
#: /init reads this file too, as process 1: it ends, and the kernel with it.
PANIC = """cat > /etc/initramfs-tools/conf.d/panic <<'END'
[ "$$" != 1 ] || case "$(uname -r)" in {kernel}) exit 1 ;; esac
END
[ ! -e /boot/initrd.img-{kernel} ] || update-initramfs -u -k {kernel}"""


@dataclass(frozen=True)
class Upgrade:
    """A machine with an older kernel, and an operator who upgrades it."""

    bench: Bench
    origin: str
    newest: str

    def start(self, name: str) -> Play:
        """Start a run for a card that needs the newest kernel; the stack for no GPU stands for one."""
        kernel = {"at_least": self.newest.rpartition("-cloud")[0], "metapackage": META}
        variables = {"xpu_stack": "cpu", "xpu_stack_overrides": {"kernel": kernel}}
        return self.bench.play(f"upgrade-{name}", variables, options=("--tags", "kernel"))

    def run(self, name: str) -> Run:
        """Upgrade, to the end."""
        return self.start(name).finish()

    def back(self, name: str) -> Run:
        """Run for a stack whose modules need kernels older than the newest."""
        kernel = {
            "at_least": self.origin.rpartition("-cloud")[0],
            "before": self.newest.rpartition("-cloud")[0],
            # No metapackage here follows the older line; its one image serves as well.
            "metapackage": f"linux-image-{self.origin}",
            "metapackages": [META, "linux-image-generic-hwe-22.04", "linux-headers-generic-hwe-22.04"],
        }
        variables = {"xpu_stack": "cpu", "xpu_stack_overrides": {"kernel": kernel}}
        return self.bench.play(f"back-{name}", variables, options=("--tags", "kernel")).finish()


@pytest.fixture(scope="module")
def upgrade(machine: Machine) -> Iterator[Upgrade]:
    """The machine after test_check_mode.py, with a suite that has a newer kernel; bare again afterwards."""
    bench = Bench(machine.node.fleet, machine.node.name, print, reuse=True)
    bench.begin(Stage.BARE, lossy=True)
    newest = bench.root(UPDATES).strip()
    yield Upgrade(bench, look(machine)["boot"]["kernel"], newest)
    bench.begin(Stage.BARE)


def boots_origin(upgrade: Upgrade) -> dict[str, Any]:
    state = upgrade.bench.settle()
    assert state["boot"]["kernel"] == upgrade.origin
    return state


def test_a_power_cut_while_it_is_installed_boots_the_former_kernel(upgrade: Upgrade) -> None:
    assert upgrade.newest and upgrade.newest != upgrade.origin
    play = upgrade.start("cut")
    assert play.reaches("Install the kernel"), play.finish().output
    unpacked = f"until ls /boot/*{upgrade.newest}* >/dev/null 2>&1; do sleep 0.2; done"
    upgrade.bench.root(f"timeout 300 sh -c '{unpacked}'")
    upgrade.bench.machine.cut_power()
    upgrade.bench.machine.start(lossy=True)
    assert not play.finish().clean
    boots_origin(upgrade)


def test_a_panic_of_the_newer_kernel_returns_to_the_former(upgrade: Upgrade) -> None:
    upgrade.bench.root(PANIC.format(kernel=upgrade.newest))
    try:
        run = upgrade.run("panic")
        assert not run.clean and "never reached systemd" in " ".join(run.output.split()), run.output
        boots_origin(upgrade)
    finally:
        remake = f"[ ! -e /boot/initrd.img-{upgrade.newest} ] || update-initramfs -u -k {upgrade.newest}"
        upgrade.bench.root(f"rm /etc/initramfs-tools/conf.d/panic; {remake}")


def test_without_room_for_another_initramfs_nothing_changes(upgrade: Upgrade) -> None:
    """The kernel is installed by now: its initramfs would be written beside the present one."""
    before = look(upgrade.bench.machine)["boot"]
    upgrade.bench.root("fallocate -l $(($(df --output=avail --block-size=1M /boot | tail -1) - 4))M /boot/full")
    try:
        run = upgrade.run("full")
        assert not run.clean and "its initramfs is written beside the present one" in " ".join(run.output.split())
        assert look(upgrade.bench.machine)["boot"] == before
    finally:
        upgrade.bench.root("rm /boot/full")


def test_it_is_upgraded_with_nothing_held_and_nothing_removed(upgrade: Upgrade) -> None:
    before = look(upgrade.bench.machine)
    run = upgrade.run("done")
    assert run.clean, run.output
    upgrade.bench.machine.wait(BOOT_TIMEOUT)
    after = look(upgrade.bench.machine)
    boot = after["boot"]
    assert (boot["kernel"], boot["drop_in"], boot["trial"], boot["armed"]) == (upgrade.newest, "", "", [])
    assert after["packages"]["held"] == before["packages"]["held"]
    assert set(before["packages"]["installed"]) <= set(after["packages"]["installed"])
    # It goes automatically once it is too old: apt installed it as a dependency.
    assert f"linux-image-{upgrade.newest}" not in after["packages"]["manual"]


def test_an_upgraded_machine_is_left_alone(upgrade: Upgrade) -> None:
    again = upgrade.run("again")
    assert again.clean and again.recap("changed") == 0, again.output
    boot = look(upgrade.bench.machine)["boot"]
    assert boot["kernel"] == upgrade.newest


def test_a_kernel_that_is_too_new_is_changed_back_and_goes(upgrade: Upgrade) -> None:
    upgrade.bench.root("rm /etc/apt/sources.list.d/updates.list && apt-get update -qq")
    run = upgrade.back("done")
    assert run.clean, run.output
    upgrade.bench.machine.wait(BOOT_TIMEOUT)
    state = look(upgrade.bench.machine)
    boot, packages = state["boot"], state["packages"]
    assert (boot["kernel"], boot["drop_in"], boot["trial"], boot["armed"]) == (upgrade.origin, "", "", [])
    left = [name for name in packages["installed"] if name == META or upgrade.newest in name]
    assert not left and f"linux-image-{upgrade.origin}" in packages["installed"]


def test_a_machine_that_was_changed_back_is_left_alone(upgrade: Upgrade) -> None:
    again = upgrade.back("again")
    assert again.clean and again.recap("changed") == 0, again.output
    assert look(upgrade.bench.machine)["boot"]["kernel"] == upgrade.origin
