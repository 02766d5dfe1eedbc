"""Runs one of the collection's modules as Ansible does on a node: a process with JSON arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_COLLECTIONS = Path(__file__).resolve().parents[3] / "collections"


def run_module(name: str, /, *, check: bool = False, path: str = "", **arguments: Any) -> dict[str, Any]:
    """Run a module and return its result; PATH puts a directory of stand-in commands first."""
    private = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_tmpdir": None}
    environment = {
        **os.environ,
        "PYTHONPATH": str(_COLLECTIONS),
        "PATH": f"{path}:{os.environ['PATH']}",
    }
    process = subprocess.run(
        [sys.executable, "-m", f"ansible_collections.xpu.fleet.plugins.modules.{name}"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": {**private, **arguments}}),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.stdout, process.stderr
    result: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return result
