"""Runs the collection's playbooks on hosts that can't be reached, and reads what was said of each."""

from __future__ import annotations

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
#: An address for documentation: whoever is not refused before is unreachable, and nothing is changed anywhere.
NOWHERE = {
    "ansible_host": "192.0.2.1",
    "ansible_ssh_common_args": "-o ConnectTimeout=1 -o ConnectionAttempts=1",
    "ansible_python_interpreter": "/usr/bin/python3",
}


@dataclass(frozen=True)
class Run:
    """How a run ended, and what it said."""

    status: int
    output: str

    @property
    def refusals(self) -> dict[str, list[str]]:
        """What each host was refused for, on one line each."""
        found: dict[str, list[str]] = {}
        for host, result in re.findall(r"^fatal: \[([^\]]+)\]: FAILED! => (\{.*\})$", self.output, re.M):
            found.setdefault(host, []).append(" ".join(json.loads(result)["msg"].split()))
        return found

    @property
    def text(self) -> str:
        """Everything, on one line."""
        return " ".join(self.output.split())


def playbook(name: str, *arguments: str, where: Path = ROOT) -> Run:
    """Run a playbook of the checkout."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")},
        **{"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
        **{"ANSIBLE_NOCOLOR": "1", "COLUMNS": "1000"},
    }
    done = subprocess.run(
        ["ansible-playbook", str((ROOT / "playbooks" / name).with_suffix(".yml")), *arguments],
        cwd=where,
        env=environment,
        text=True,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
    )
    return Run(done.returncode, done.stdout)


def inventory(folder: Path, hosts: dict[str, dict[str, Any]]) -> str:
    """Write an inventory of hosts that can't be reached; return its path."""
    path = folder / "hosts.yml"
    path.write_text(yaml.safe_dump({"all": {"vars": NOWHERE, "hosts": hosts}}), encoding="utf-8")
    return str(path)
