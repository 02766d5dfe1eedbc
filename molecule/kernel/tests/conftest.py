"""Shared parts of the kernel scenario's tests: a machine, its state, and an operator who runs playbooks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from kernel.faults.bench import write_inventory
from kernel.faults.play import Operator, Run
from kernel.faults.state import look
from rig import cache
from rig.machine import Machine

FLEET, NAME = "kernel", "m1"
FOLDER = cache.RUN / FLEET / "tests"
#: Every layer that the scenario provisions.
TAGS = "repository,kernel,driver,access"


@pytest.fixture(scope="session")
def machine() -> Machine:
    """The machine under test."""
    return Machine.of(FLEET, NAME)


@pytest.fixture
def bare() -> Path:
    """File with the machine's state before any change."""
    return FOLDER / "bare.json"


@pytest.fixture(scope="session")
def play() -> Any:
    """Run a playbook against the machine."""
    operator = Operator(write_inventory(FOLDER / NAME, FLEET, NAME), NAME, FOLDER / "logs")

    def run(playbook: str, *options: str, tags: str = TAGS) -> Run:
        log = f"{Path(playbook).stem}{''.join(options[:1])}"
        return operator.start(playbook, log, {}, (*options, "--tags", tags)).finish()

    return run


@pytest.fixture(scope="session")
def converged(machine: Machine) -> dict[str, Any]:
    """The machine's state after provisioning, read once."""
    return look(machine)
