"""After a rollback the node is as it was before the collection.

This file runs last, as it removes what the others need.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from default.tests.snapshots import differences, settled, snapshot

testinfra_hosts = ["ansible://arc"]

#: Files that another test leaves.
PASSING = "/srv/pickled(/.*)?"


@pytest.fixture(scope="module")
def found(node: str) -> dict[str, Any]:
    """The node before the collection, as prepare.yml recorded it."""
    path = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / f"{node}.json"
    return settled(json.loads(path.read_text(encoding="utf-8")), PASSING)


def test_check_mode_shows_and_changes_nothing(host: Any, rollback: Any) -> None:
    before = snapshot(host, PASSING)
    run = rollback(None, "--check", "--diff")
    assert run.status == 0, run.output
    assert run.changed > 0
    for words in ("intel-opencl-icd", "intel-oneapi-mkl", "mesa-va-drivers=22"):
        assert words in run.output, run.output
    assert differences(before, snapshot(host, PASSING)) == []
    assert host.service("xpuserve@0").is_running


def test_one_layer_goes_alone(host: Any, rollback: Any) -> None:
    run = rollback(None, "--tags", "service")
    assert run.status == 0, run.output
    assert not host.file("/etc/systemd/system/xpuserve@.service").exists
    assert not host.file("/var/lib/xpuserve").exists
    assert host.file("/etc/xpuserve/oneapi.env").exists
    assert host.file("/opt/xpu/engines").exists
    assert host.package("intel-opencl-icd").is_installed
    assert "intel-opencl-icd" in host.check_output("apt-mark showhold")


def test_it_is_refused_where_something_else_would_go(host: Any, rollback: Any) -> None:
    control = "Package: player\nVersion: 1\nArchitecture: all\nMaintainer: x\nDescription: x\nDepends: level-zero\n"
    tree = "/root/player"
    host.check_output("mkdir -p %s/DEBIAN && printf %s > %s/DEBIAN/control", tree, control, tree)
    host.check_output(f"dpkg-deb --build {tree} {tree}.deb && dpkg -i {tree}.deb")
    before = snapshot(host, PASSING)
    run = rollback()
    assert run.status != 0, run.output
    assert "would also remove player" in run.output, run.output
    assert differences(before, snapshot(host, PASSING)) == []
    host.check_output(f"dpkg --purge player && rm -r {tree} {tree}.deb")


def test_a_run_that_is_cut_off_is_finished_by_the_next(host: Any, rollback: Any, found: dict[str, Any]) -> None:
    stop = "/etc/apt/apt.conf.d/99stop"
    host.check_output("printf %s > %s", 'DPkg::Pre-Invoke {"exit 1";};\n', stop)
    run = rollback()
    assert run.status != 0, run.output
    host.check_output(f"rm {stop}")
    assert host.package("intel-opencl-icd").is_installed
    # A node without its GPU has no stack: its records say what to remove.
    run = rollback({"xpu_stack": "no-such-stack"})
    assert run.status == 0, run.output
    assert differences(found, snapshot(host, PASSING)) == []


def test_a_second_run_changes_nothing(rollback: Any) -> None:
    run = rollback()
    assert run.status == 0, run.output
    assert run.changed == 0, run.output


def test_a_driver_that_was_there_is_back_at_its_version_and_held(host: Any, found: dict[str, Any]) -> None:
    assert found["holds"] == ["mesa-va-drivers"] == host.check_output("apt-mark showhold").split()
    assert host.package("mesa-va-drivers").version.startswith("22.")
