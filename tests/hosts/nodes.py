"""Nodes of the rig for plays of somebody's own, and for another version of the collection."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rig.fleet import Fleet

from tests.bench.fleet import inventory

ROOT = Path(__file__).resolve().parents[2]
RECAP = re.compile(r"^(\S+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """What came of a playbook: its status, all that it printed, and what it changed on each node."""

    status: int
    output: str
    changed: dict[str, int]

    @property
    def text(self) -> str:
        """What it printed, in one line: messages are broken where the terminal would end."""
        return " ".join(self.output.split())


class Nodes:
    """A fleet that is up, and a folder for inventories and playbooks."""

    def __init__(self, fleet: Fleet, folder: Path, **variables: Any) -> None:
        """Write the inventory: Arc nodes are as in the default scenario, but build no module that nobody loads."""
        self.folder = folder
        known = inventory(fleet)
        known["all"]["vars"] |= {"rig": json.loads((fleet.folder / "facts.json").read_text()), "xpu_device": "cpu"}
        known["all"]["vars"] |= variables
        arc = yaml.safe_load((ROOT / "molecule/default/inventory/host_vars/arc.yml").read_text())
        for name, host in known["all"]["hosts"].items():
            host.update({**arc, "xpu_dkms": "auto"} if "arc" in name else {"xpu_engine": "openvino"})
        (folder / "hosts.yml").write_text(json.dumps(known))

    def play(self, roles: list[str], host: str, *options: str, **variables: Any) -> Run:
        """Run a play that has nothing but these roles, as somebody would write it."""
        play = {"name": "Mine", "hosts": host, "become": True, "vars": variables, "roles": roles}
        (self.folder / "mine.yml").write_text(yaml.safe_dump([play]))
        return self.run(self.folder / "mine.yml", *options)

    def run(self, playbook: Path, *options: str, checkout: Path = ROOT) -> Run:
        """Run a playbook with the collection of a checkout."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.folder / "hosts.yml")]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(checkout / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(checkout / "collections"),
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp"),
            "ANSIBLE_FORCE_COLOR": "0",
        }
        result = subprocess.run(
            [*command, str(playbook), *options],
            cwd=checkout,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        changed = {name: int(count) for name, count, _unreachable, _failed in RECAP.findall(result.stdout)}
        return Run(result.returncode, result.stdout + result.stderr, changed)
