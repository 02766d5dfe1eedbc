"""One version of ansible-core: its environment, and its runs."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from rig import cache
from rig.fleet import Fleet
from rig.node import Node

from tests.bench.fleet import BenchError, inventory, recap
from tests.pythons import found

ROOT = Path(__file__).resolve().parents[2]
#: Minor versions of Python 3 that a controller may have, the oldest and the newest ("ansible-core support matrix" of
#: Ansible's documentation). Each has a locked requirements file.
CORES = {"2.17": (10, 12), "2.18": (11, 13), "2.19": (11, 13), "2.20": (12, 14), "2.21": (12, 14)}
FLEET = "core"
ADDRESS = "10.77.16.11"
#: Runs on the node, in this order, and their words in the table.
STEPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("site.yml --check", ("site.yml", "--check")),
    ("site.yml --check with xpu_force", ("site.yml", "--check", "--extra-vars", "xpu_force=true")),
    ("site.yml", ("site.yml",)),
    ("site.yml again: changed=0", ("site.yml",)),
    ("audit.yml: in order", ("playbooks/audit.yml",)),
)
#: Those of them that may change nothing.
CONVERGED = "changed=0"
#: Tests of controller-side code; those of modules do not depend on its core, but on the node's Python.
UNIT = (
    *(f"tests/unit/plugins/{place}" for place in ("action", "callback", "plugin_utils")),
    "tests/unit/test_audit_playbook.py",
)
#: Pythons of nodes to refuse in one sentence, with the newest ansible-core that leaves that to the collection.
REFUSED = {(3, 7): (2, 17), (3, 8): (2, 19)}


class CoreError(Exception):
    """A run failed; the message says which, and where its output is."""


@dataclass(frozen=True)
class Done:
    """A line of the table."""

    controller: str
    python: str
    node: str
    steps: Sequence[str]

    def cells(self) -> list[str]:
        """Return the line's cells."""
        return [self.controller, self.python, self.node, ", ".join(self.steps)]


def controllers(cores: Sequence[str], pythons: Mapping[tuple[int, int], Path]) -> dict[str, Path]:
    """Return a Python for each core that has one: the oldest that it supports, the newest for the newest core."""
    chosen = {}
    for core in cores:
        low, high = CORES[core]
        fitting = [version for version in sorted(pythons) if (3, low) <= version <= (3, high)]
        if fitting:
            chosen[core] = pythons[fitting[-1 if core == list(CORES)[-1] else 0]]
    return chosen


def environment(name: str, python: Path) -> Path:
    """Return the virtual environment of a locked requirements file, made in the cache if missing."""
    requirements = ROOT / f"requirements/{name}.txt"
    version = python.name.removeprefix("python")
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    place = cache.ROOT / "venv" / f"{name}-{version}-{digest}".replace(".", "_")
    command = [str(python), str(ROOT / "requirements/venv.py"), str(requirements), str(place), version]
    if subprocess.run(command, check=False).returncode:
        raise CoreError(f"{name} can't be installed for {python}")
    return place


def step(
    name: str, command: Sequence[str], venv: Path, *, expected: int = 0, more: Optional[Mapping[str, str]] = None
) -> str:
    """Run a command with an environment's programs, log its output and return it. Raises CoreError."""
    logs = cache.RUN / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    log = logs / f"core-{name.replace(' ', '-')}.log"
    variables = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "PYTHONPATH"))}
    variables |= {"PATH": f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    variables |= {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_FORCE_COLOR": "0", **(more or {})}
    began = time.monotonic()
    with log.open("w", encoding="utf-8") as output:
        done = subprocess.run(command, cwd=ROOT, env=variables, stdout=output, stderr=subprocess.STDOUT, check=False)
    said = log.read_text(encoding="utf-8", errors="replace")
    print(f"core: {name} [{time.monotonic() - began:.0f} s]", file=sys.stderr, flush=True)
    if done.returncode != expected:
        raise CoreError(f"{name} ended with status {done.returncode}; whole output: {log}\n{said[-3000:]}")
    return said


def core(version: str, python: Path) -> list[Done]:
    """Run everything with one version of ansible-core. Raises CoreError at the first failure."""
    venv = environment(f"core-{version}", python)
    playbook = str(venv / "bin/ansible-playbook")
    step(f"{version} unit tests", [str(venv / "bin/python"), "-m", "pytest", *UNIT], venv)
    playbooks = ["site.yml", *sorted(f"playbooks/{path.name}" for path in (ROOT / "playbooks").glob("*.yml"))]
    step(f"{version} syntax", [playbook, "--inventory", "localhost,", "--syntax-check", *playbooks], venv)
    steps = ["unit tests of plugins", "syntax of all playbooks", *refusals(version, venv), *provision(version, venv)]
    exact = step(f"{version} version", [str(venv / "bin/ansible"), "--version"], venv).split("]")[0].split()[-1]
    node = step(f"{version} node", ["ssh", *_ssh(), "python3", "--version"], venv).split()[-1]
    fleet().down()
    minor = python.name.removeprefix("python")
    return [Done(f"ansible-core {exact}", minor, f"Debian 12, Python {node}", steps)]


def refusals(version: str, venv: Path) -> list[str]:
    """Let nodes with too old Pythons be refused; return their versions."""
    refused = []
    for minor, python in found().items():
        if tuple(map(int, version.split("."))) > REFUSED.get(minor, (0, 0)):
            continue
        name = ".".join(map(str, minor))
        variables = f"ansible_python_interpreter={python} xpu_gpus_become=false"
        options = ["--inventory", "localhost,", "--connection", "local", "--check", "--extra-vars", variables]
        for playbook in ("gpus", "rollback"):
            command = [str(venv / "bin/ansible-playbook"), *options, f"playbooks/{playbook}.yml"]
            said = step(f"{version} {playbook} on Python {name}", command, venv, expected=2)
            sentence = f"This node's Python is {name} ({python})"
            # Lines are wrapped, and quotes doubled within quotes.
            if sentence not in " ".join(said.split()).replace("''", "'"):
                raise CoreError(f"{playbook}.yml does not refuse Python {name}: {said[-3000:]}")
        refused.append(f"Python {name} of a node refused")
    return refused


def provision(version: str, venv: Path) -> list[str]:
    """Provision a bare node and return the completed steps. Raises CoreError."""
    bare = fleet()
    bare.down()
    bare.up()
    hosts = bare.folder / "hosts.yml"
    hosts.write_text(json.dumps(inventory(bare)), encoding="utf-8")
    sockets = {"ANSIBLE_SSH_CONTROL_PATH_DIR": str(bare.folder / "ssh")}
    for name, words in STEPS:
        command = [str(venv / "bin/ansible-playbook"), "--inventory", str(hosts), *words]
        said = step(f"{version} {name.split(':')[0]}", command, venv, more=sockets)
        try:
            changed = {node: changes for node, (changes, _) in recap(said).items()}
        except BenchError as error:
            raise CoreError(f"{version} {name}: {error}") from error
        if CONVERGED in name and any(changed.values()):
            raise CoreError(f"{version} {name}: {changed}")
    return [name for name, _words in STEPS]


def fleet() -> Fleet:
    """Return the fleet of one bare node."""
    platform = {"name": "core", "userland": "debian12", "address": ADDRESS}
    return Fleet(FLEET, (Node.parse(FLEET, platform),), {"platforms": [platform]})


def _ssh() -> list[str]:
    facts = json.loads((fleet().folder / "facts.json").read_text(encoding="utf-8"))
    known = f"UserKnownHostsFile={facts['known_hosts']}"
    return ["-q", "-i", facts["ssh_key"], "-o", known, f"{facts['ssh_user']}@{ADDRESS}"]
