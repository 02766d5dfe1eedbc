"""The Python versions of nodes that the collection supports. Runs on older ones as well, to refuse them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

#: README has the same.
OLDEST = (3, 9)


def refusal(version: Sequence[int] = sys.version_info[:2], interpreter: str = sys.executable) -> str:
    """Return one sentence if a Python is too old, "" otherwise."""
    if tuple(version[:2]) >= OLDEST:
        return ""
    found, needed = ".".join(map(str, version[:2])), ".".join(map(str, OLDEST))
    where = f"This node's Python is {found} ({interpreter})"
    return f"{where}, and xpu.fleet needs {needed} or newer: set ansible_python_interpreter."


def require_python() -> None:
    """End the module with that sentence if the node's Python is too old.

    The first module of every playbook calls this before it imports the rest, which an older Python may not even read.
    """
    reason = refusal()
    if reason:
        # AnsibleModule, which would end a module by its own functions, cannot be imported by this Python.
        sys.stdout.write(json.dumps({"failed": True, "msg": reason}))
        raise SystemExit(1)
