"""The rollback to the machine's own kernel, GRUB default and packages; runs after the other tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from kernel.faults.state import differences, look, unfit
from rig.machine import Machine


def test_the_machine_is_left_as_it_was_found(machine: Machine, play: Any, bare: Path) -> None:
    run = play("playbooks/rollback.yml")
    assert run.clean, run.output
    after = look(machine, files=True)
    assert unfit(after) == []
    assert differences(json.loads(bare.read_text()), after) == []
