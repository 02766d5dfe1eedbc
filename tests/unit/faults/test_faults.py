"""The fault harness, as far as it goes without a machine: reading runs, judging states, the table, the catalogue."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kernel.faults import bench
from kernel.faults.catalogue import FAULTS, MOMENTS, Act, Stage, choose
from kernel.faults.play import Play, Run, is_task
from kernel.faults.state import differences, release_of, stack, unconverged, unfit, unproven, wanted
from kernel.faults.table import COLUMNS, as_markdown, as_text, rows
from rig import cache
from rig.machine import Machine

ORIGIN = "6.1.0-30-cloud-amd64"
FAILED = """
TASK [xpu.fleet.kernel : Look] *************************************************
fatal: [f1]: FAILED! =>
    changed: false
    msg: never mind
...ignoring

TASK [xpu.fleet.kernel : Check that the kernel runs] ****************
[ERROR]: Task failed: Action failed: The node runs 6.1 again.
fatal: [f1]: FAILED! =>
    assertion: a == b
    msg: 'The node runs 6.1 again. It said: "no"
        Nothing was removed.'

PLAY RECAP *********************************************************************
f1                         : ok=2    changed=3    unreachable=0    failed=1    skipped=0    rescued=0    ignored=1
"""


def test_a_run_says_what_its_last_failure_was() -> None:
    run = Run(2, FAILED)
    assert not run.clean
    assert run.failures == ['The node runs 6.1 again. It said: "no" Nothing was removed.']
    assert run.says == run.failures[-1]
    assert (run.recap("changed"), run.recap("failed")) == (3, 1)


def test_a_run_without_an_end_is_not_clean() -> None:
    assert Run(-9, FAILED.partition("PLAY RECAP")[0]).recap("failed") == -1
    assert Run(-9, "").says == "(killed)"
    assert not Run(0, "").clean
    assert Run(0, "PLAY RECAP **\nf1 : ok=2 changed=0 unreachable=0 failed=0").clean


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("TASK [xpu.fleet.node_reboot : Ensure the node is rebooted] *********\n", True),
        ("TASK [Ensure the node is rebooted] *********\n", True),
        ("TASK [xpu.fleet.kernel : Ensure the node is rebooted twice] *********\n", False),
        ("ok: [f1] => Ensure the node is rebooted\n", False),
    ],
)
def test_a_task_is_known_by_its_heading(line: str, found: bool) -> None:
    assert is_task(line, "Ensure the node is rebooted") is found


def controller(tmp_path: Path) -> Play:
    """A run that shows two tasks, leaves a process behind as SSH does, and then takes its time."""
    program = (
        "import subprocess, sys, time\n"
        "for task in ('One', 'Two', 'One'):\n"
        "    print(f'TASK [r : {task}] ***', flush=True); time.sleep(0.1)\n"
        "child = subprocess.Popen(['sleep', '300'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)\n"
        "print(child.pid, flush=True); time.sleep(300)\n"
    )
    return Play([sys.executable, "-c", program], {}, tmp_path / "run.log")


def test_moments_are_found_in_their_order_and_a_kill_ends_every_process(tmp_path: Path) -> None:
    play = controller(tmp_path)
    assert play.reaches("One", 10)
    assert play.reaches("Two", 10)
    assert play.reaches("One", 10)
    assert not play.reaches("Two", 0.3)
    time.sleep(0.3)
    play.kill()
    run = play.finish(10)
    assert run.says == "(killed)"
    child = int(run.output.splitlines()[-1])
    with pytest.raises(ProcessLookupError):
        for _ in range(50):
            os.kill(child, 0)
            if Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                raise ProcessLookupError
            time.sleep(0.1)
    assert "TASK [r : One]" in (tmp_path / "run.log").read_text()


def good() -> dict[str, Any]:
    """A machine without faults."""
    kernel, driver = stack()["kernel"], stack()["driver"]
    return {
        "boot": {
            "kernel": wanted(), "boot_id": "b", "command_line": "root=x", "boots": 3, "system": "running", "failed": "",
            "lacking": [], "default": [f"gnulinux-advanced-1>gnulinux-{wanted()}-advanced-1"], "panic": [],
            "drop_in": "", "environment": [], "armed": [], "timer": "inactive", "trial": "", "written_wrong": 0,
            "read_only": False,
        },
        "packages": {
            "installed": {**kernel["packages"], "dkms": "3"}, "unfinished": {}, "remains": [], "manual": [],
            "held": [*kernel["packages"]],
            "dkms": [f"{entry['module']}/1, {wanted()}, x86_64: installed" for entry in driver["dkms"]],
        },
        "gpu": {
            "drivers": {"0x56a0": "i915"}, "loaded": "A", "on_disk": "A", "magic": wanted(),
            "module": f"/lib/modules/{wanted()}/updates/dkms/i915.ko",
            "render": {"group": "render", "character_device": True, "number": [226, 128], "xpu_opens_it": True},
        },
        "files": {"/etc/a": "1", "/boot/initrd.img-6": "2"},
    }  # fmt: skip


def bad(where: str, what: str, value: Any) -> dict[str, Any]:
    """The same but for one thing."""
    state = copy.deepcopy(good())
    state[where][what] = value
    return state


def test_a_converged_machine_has_no_problems() -> None:
    assert unconverged(good(), access=True) == []
    assert unproven(good(), ORIGIN) == []


@pytest.mark.parametrize(
    ("where", "what", "value"),
    [
        ("boot", "kernel", ORIGIN),
        ("boot", "default", ["0"]),
        ("boot", "default", [f"gnulinux-advanced-1>gnulinux-{wanted()}-recovery-1"]),
        ("boot", "environment", ["next_entry=x"]),
        ("boot", "panic", ["panic=30"]),
        ("boot", "command_line", "root=x panic=30"),
        ("boot", "armed", ["xpu-fleet-kernel-return.timer"]),
        ("boot", "timer", "active"),
        ("boot", "trial", "{}"),
        ("boot", "system", "degraded"),
        ("boot", "lacking", ["/boot/vmlinuz"]),
        ("boot", "read_only", True),
        ("packages", "held", []),
        ("packages", "installed", {**good()["packages"]["installed"], f"linux-image-{ORIGIN}": "6"}),
        ("packages", "installed", {**good()["packages"]["installed"], "linux-generic-hwe-22.04": "6"}),
        ("packages", "unfinished", {"dkms": "half-installed"}),
        ("packages", "dkms", []),
        ("gpu", "drivers", {"0x56a0": ""}),
        ("gpu", "loaded", "B"),
        ("gpu", "magic", ORIGIN),
        ("gpu", "render", {}),
        ("gpu", "render", {**good()["gpu"]["render"], "xpu_opens_it": False}),
    ],
)
def test_whatever_is_wrong_with_a_converged_machine_is_seen(where: str, what: str, value: Any) -> None:
    assert unconverged(bad(where, what, value), access=True)


def test_a_machine_on_an_unproven_kernel_is_seen() -> None:
    assert unproven(bad("boot", "trial", "{}"), ORIGIN)
    assert unproven(bad("boot", "kernel", "5.15.0-1-generic"), ORIGIN)
    assert unfit(bad("packages", "installed", {}))


def test_a_removed_origin_is_seen_until_the_new_kernel_is_proven() -> None:
    state = bad("boot", "kernel", ORIGIN)
    state["boot"]["default"] = [f"gnulinux-advanced-1>gnulinux-{ORIGIN}-advanced-1"]
    assert unproven(state, ORIGIN)
    state["packages"]["installed"][f"linux-image-{ORIGIN}"] = "6"
    assert unproven(state, ORIGIN) == []


@pytest.mark.parametrize(
    ("package", "release"),
    [
        ("linux-image-5.19.0-41-generic", "5.19.0-41-generic"),
        ("linux-modules-extra-5.19.0-41-generic", "5.19.0-41-generic"),
        ("linux-image-unsigned-6.1.0-30-cloud-amd64", "6.1.0-30-cloud-amd64"),
        ("linux-image-generic-hwe-22.04", ""),
        ("linux-libc-dev", ""),
    ],
)
def test_the_release_of_a_package(package: str, release: str) -> None:
    assert release_of(package) == release


def test_what_differs_is_named_but_for_an_initramfs_made_anew() -> None:
    after = copy.deepcopy(good())
    assert differences(good(), after) == []
    after["files"] = {"/etc/a": "changed", "/etc/b": "1", "/boot/initrd.img-6": "9"}
    after["packages"]["held"] = []
    after["packages"]["installed"]["dkms"] = "4"
    found = differences(good(), after)
    assert {"/etc/a has other contents", "/etc/b is new", "installed: dkms 3 is gone"} <= set(found)
    assert not any("initrd" in line for line in found)


def test_the_catalogue_has_every_step_with_both_endings() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(names) == len(set(names))
    assert len(MOMENTS) >= 8
    for name, *_ in MOMENTS:
        acts = {fault.act for [fault] in choose([f"cut-{name}", f"kill-{name}"])}
        assert acts == {Act.CUT, Act.KILL}
    with pytest.raises(KeyError):
        choose(["no-such-fault"])


def test_stories_have_every_fault_once_and_can_be_made_of_any() -> None:
    told = [fault.name for story in choose([]) for fault in story]
    assert sorted(told) == sorted(fault.name for fault in FAULTS)
    assert [[fault.name for fault in story] for story in choose(["cut-unpack,panic", "rollback"])] == [
        ["cut-unpack", "panic"],
        ["rollback"],
    ]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_what_is_run_on_machines_is_shell(fault: Any) -> None:
    for script in (fault.inject, fault.mend, fault.script, fault.moment.until if fault.moment else ""):
        subprocess.run(["sh", "-n", "-c", script], check=True)
    re.compile(fault.says)


def test_the_table_fits_a_terminal_and_a_document() -> None:
    outcome = SimpleNamespace(
        fault=choose(["panic"])[0][0],
        problems=[],
        machine=f"answers on {ORIGIN}",
        says="The node runs 6.1 again | and <more>. " * 3,
        next_run="converges, failed=0",
    )
    cells = rows([outcome])
    text = as_text(COLUMNS, cells)
    assert "panic" in text
    assert max(map(len, text.splitlines())) <= 160
    markdown = as_markdown(COLUMNS, cells).splitlines()
    assert len(markdown) == 3
    assert len(re.findall(r"(?<!\\)\|", markdown[2])) == len(COLUMNS) + 1


def test_a_machine_that_somebody_kept_is_not_made_bare_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    configured = tmp_path / "configured"
    configured.touch()
    machine = SimpleNamespace(
        node=SimpleNamespace(configured=configured),
        save=lambda name: done.append(f"save {name}"),
        cut_power=lambda: done.append("cut"),
        start=lambda snapshot, lossy: done.append(f"start {snapshot} {lossy}"),
        wait=lambda timeout: done.append("wait"),
    )
    monkeypatch.setattr(cache, "RUN", tmp_path)
    monkeypatch.setattr(Machine, "of", lambda *_: machine)
    monkeypatch.setattr(bench, "write_inventory", lambda folder, *_: folder.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr(bench, "Operator", lambda *_: None)
    bare = {"boot": {"kernel": ORIGIN}, "files": {}}
    bench.Bench("f", "m", print).adopt(bare)
    assert done == ["save bare"]

    later = bench.Bench("f", "m", print, reuse=True)
    assert (later.bare, later.origin) == (bare, ORIGIN)
    later.begin(Stage.BARE, lossy=True)
    assert done[1:] == ["cut", "start bare True", "wait"]

    # The snapshot went with the machine that had it.
    os.utime(configured, ns=(0, 0))
    assert bench.Bench("f", "m", print, reuse=True).saved == set()
