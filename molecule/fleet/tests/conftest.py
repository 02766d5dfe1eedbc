"""The hosts of the fleet, and runs of playbooks that can be killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import pytest
import testinfra
from default.tests.conftest import wait_for
from fleet import clients

ROOT = Path(__file__).resolve().parents[3]
DOOR, PORT = "10.77.40.10", 8080
NODES = {"n1": "10.77.40.11", "n2": "10.77.40.12", "n3": "10.77.40.13"}


def asking() -> AbstractContextManager[clients.Clients]:
    """Have eight clients ask all the while."""
    return clients.asking(DOOR, PORT)


def on(name: str) -> Any:
    """A host of the fleet."""
    return testinfra.get_host(f"ansible://{name}?ansible_inventory={os.environ['MOLECULE_INVENTORY_FILE']}", sudo=True)


def statuses() -> dict[str, str]:
    """What the gateway thinks of each node."""
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


def end(process: int) -> None:
    """Kill a process and all below it: Ansible's workers have sessions of their own."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found = [process]
    for each in found:
        found += parents.get(each, [])
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)


class Controller:
    """A run of a playbook that can be killed at a task."""

    def __init__(self, playbook: str, variables: dict[str, Any], *options: str) -> None:
        self.output = ""
        self._read = threading.Condition()
        command = [str(Path(sys.executable).with_name("ansible-playbook")), playbook]
        command += ["--inventory", os.environ["MOLECULE_INVENTORY_FILE"], "--extra-vars", json.dumps(variables)]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0"}
        # A task is shown as it begins, not with its first result.
        environment["ANSIBLE_DISPLAY_SKIPPED_HOSTS"] = "true"
        self._process = subprocess.Popen(
            [*command, *options],
            cwd=ROOT,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._follow, daemon=True)
        self._reader.start()

    def _follow(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._read:
                self.output += line
                self._read.notify_all()
        with self._read:
            self._read.notify_all()

    def kill_at(self, task: str) -> None:
        """Kill it, and all that it started here, as that task begins."""
        with self._read:
            assert self._read.wait_for(lambda: f"TASK [{task}]" in self.output or self._process.poll() is not None, 900)
        assert f"TASK [{task}]" in self.output, self.output
        # The number of a process that has ended may be another's by now.
        if self._process.poll() is None:
            end(self._process.pid)
            self._process.wait()

    def end(self) -> int:
        """Wait for its end, and return its status."""
        status = self._process.wait(1800)
        self._reader.join(60)
        return status


Upgrade = Callable[..., Controller]


@pytest.fixture
def upgrade() -> Upgrade:
    """Begin a rolling change to these variables."""
    return lambda variables, *options: Controller("playbooks/upgrade.yml", variables, *options)


def setting(name: str, node: str) -> Any:
    """A setting of the service on a node."""
    return json.loads(on(node).check_output("cat /etc/xpuserve/config.json"))[name]


def since(began: float) -> str:
    """Seconds since then, for a figure."""
    return f"{time.monotonic() - began:.1f} s"
