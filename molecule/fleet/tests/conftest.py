"""The hosts of the fleet, and playbook runs that can be killed."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import testinfra
from default.tests.conftest import wait_for
from fleet import clients
from fleet.controller import Controller

ROOT = Path(__file__).resolve().parents[3]
DOOR, PORT = "10.77.40.10", 8080
NODES = {"n1": "10.77.40.11", "n2": "10.77.40.12", "n3": "10.77.40.13"}


def asking() -> AbstractContextManager[clients.Clients]:
    """Run eight clients all the while."""
    return clients.asking(DOOR, PORT)


def on(name: str) -> Any:
    """A host of the fleet."""
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={os.environ['MOLECULE_INVENTORY_FILE']}", sudo=True)


def statuses() -> dict[str, str]:
    """The gateway's status of each node."""
    code = (
        "import csv,socket,sys;s=socket.socket(socket.AF_UNIX);s.connect('/run/xpu-gateway/admin.sock');"
        "s.sendall(b'show stat\\n');t=b''.join(iter(lambda:s.recv(65536),b'')).decode();"
        "[print(r['svname'],r['status']) for r in csv.DictReader(t.lstrip('# ').splitlines())]"
    )
    lines = on("door").check_output(f'python3 -c "{code}"').splitlines()
    found = dict(line.split(" ", 1) for line in lines)
    return {name: found[f"{name}-0"] for name in NODES}


def wait_until_all_serve() -> None:
    """Wait until the gateway sends requests to every node."""
    wait_for(lambda: set(statuses().values()) == {"UP"})


class Upgrading(Controller):
    """A run of upgrade.yml, or of another playbook, on the fleet."""

    task_seconds = 900.0
    run_seconds = 1800.0

    def __init__(self, playbook: str, variables: dict[str, Any], *options: str) -> None:
        command = [str(Path(sys.executable).with_name("ansible-playbook")), playbook]
        command += ["--inventory", os.environ["MOLECULE_INVENTORY_FILE"], "--extra-vars", json.dumps(variables)]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
        super().__init__([*command, *options], environment, ROOT)

    def kill_at(self, task: str) -> None:
        """Kill the run when that task begins."""
        self.comes_to(task)
        self.kill()


Upgrade = Callable[..., Upgrading]


@pytest.fixture
def upgrade() -> Upgrade:
    """Begin a rolling change to these variables."""
    return lambda variables, *options: Upgrading("playbooks/upgrade.yml", variables, *options)


def setting(name: str, node: str) -> Any:
    """A setting of the service on a node."""
    return json.loads(on(node).check_output("cat /etc/xpuserve/config.json"))[name]


class Outages:
    """Times without requests for each node since this was made, from the gateway's log."""

    def __init__(self) -> None:
        self._began = time.time()

    def lines(self) -> list[tuple[float, str, bool]]:
        """Each change of a node: seconds since the start, its name, and whether it gets requests now."""
        log = on("door").check_output(f"journalctl --unit xpu-gateway --output short-unix --since @{self._began:.0f}")
        return [
            (float(found[1]) - self._began, found[2], found[3].startswith("UP"))
            for line in log.splitlines()
            if (found := re.match(r"([0-9.]+) .*Server \S+/(\w+)-0 (?:is|enters) (\S+)", line))
        ]

    def out(self, name: str) -> float:
        """Seconds until a node got no more requests."""
        return next(seconds for seconds, node, serves in self.lines() if node == name and not serves)

    def spans(self) -> dict[str, list[float]]:
        """Seconds of each time that a node was out and came back."""
        left: dict[str, float] = {}
        found: dict[str, list[float]] = {}
        for seconds, name, serves in self.lines():
            if not serves:
                left.setdefault(name, seconds)
            elif name in left:
                found.setdefault(name, []).append(round(seconds - left.pop(name), 1))
        return found
