"""Runs one of the collection's action plugins as Ansible does: a task on the controller."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

_COLLECTIONS = Path(__file__).resolve().parents[4] / "collections"


def run_action(name: str, folder: Path, /, *, check: bool = False, **arguments: Any) -> dict[str, Any]:
    """Run a task on localhost, with nothing of this machine's configuration, and return its result."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment |= {
        "ANSIBLE_COLLECTIONS_PATH": str(_COLLECTIONS),
        "ANSIBLE_HOME": str(folder / "home"),
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_LOAD_CALLBACK_PLUGINS": "false",
        "NO_COLOR": "1",
    }
    command = [str(Path(sys.executable).with_name("ansible")), "localhost", "-i", "localhost,", "-c", "local"]
    command += ["-e", f"ansible_python_interpreter={sys.executable}", "-m", f"xpu.fleet.{name}"]
    command += ["-a", json.dumps(arguments), *(["--check"] if check else [])]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    status, arrow, result = done.stdout.partition(" => ")
    assert arrow, done.stdout + done.stderr
    answer: dict[str, Any] = json.JSONDecoder().raw_decode(result)[0]
    return {"failed": "FAILED" in status, **answer}
