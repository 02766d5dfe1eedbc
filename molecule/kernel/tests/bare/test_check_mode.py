"""Check mode on an untouched machine: it reports the whole plan, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kernel.faults.bench import Bench
from kernel.faults.state import differences, look, stack, wanted
from rig.machine import Machine


def test_check_mode_tells_the_plan_and_changes_nothing(machine: Machine, play: Any, bare: Path) -> None:
    before = look(machine, files=True)
    bare.parent.mkdir(parents=True, exist_ok=True)
    bare.write_text(json.dumps(before))
    origin = before["boot"]["kernel"]
    assert origin != wanted()
    # Scenario default tests check mode of the other layers.
    run = play("playbooks/site.yml", "--check", tags="repository,kernel")
    assert run.clean, run.output
    said = " ".join(run.output.split())
    assert f"Running kernel {origin}, the stack's kernel {wanted()}" in said, run.output
    for name, version in stack()["kernel"]["packages"].items():
        assert f"{name}={version}" in said, run.output
    assert "Reboots: 2" in said, run.output
    for name in stack()["kernel"]["metapackages"]:
        assert name in said, run.output
    after = look(machine, files=True)
    assert differences(before, after) == []
    assert after["boot"]["boot_id"] == before["boot"]["boot_id"]
    # Nothing has changed: the faults start from here.
    Bench(machine.node.fleet, machine.node.name, print).adopt(before)
