"""Runs one of the collection's modules as Ansible does on a node: a process with JSON arguments."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_COLLECTIONS = Path(__file__).resolve().parents[4] / "collections"
_SERVER = Path(__file__).with_name("module_server.py")


@cache
def _server() -> subprocess.Popen[str]:
    """The process that modules are forked from, as long as this one runs."""
    environment = {**os.environ, "PYTHONPATH": str(_COLLECTIONS)}
    server = subprocess.Popen(
        [sys.executable, str(_SERVER)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(server.communicate)  # the end of its input is its own
    return server


def run_module(
    name: str, /, *, check: bool = False, path: str = "", at: Path | str | None = None, **arguments: Any
) -> dict[str, Any]:
    """Run a module and return its result; PATH puts a directory of stand-in commands first, AT stands for /."""
    private = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_tmpdir": None}
    request = {
        "module": f"ansible_collections.xpu.fleet.plugins.modules.{name}",
        "at": None if at is None else str(at),
        "input": json.dumps({"ANSIBLE_MODULE_ARGS": {**private, **arguments}}),
        "environment": {
            **os.environ,
            "PYTHONPATH": str(_COLLECTIONS),
            "PATH": f"{path}:{os.environ['PATH']}",
        },
        "directory": str(Path.cwd()),
    }
    server = _server()
    assert server.stdin and server.stdout
    server.stdin.write(f"{json.dumps(request)}\n")
    server.stdin.flush()
    answer = json.loads(server.stdout.readline())
    assert answer["output"], answer["error"]
    result: dict[str, Any] = json.loads(answer["output"].splitlines()[-1])
    return result


@contextmanager
def apt_locked(root: Path) -> Iterator[None]:
    """Be another program that installs packages."""
    path = root / "var/lib/dpkg/lock-frontend"
    path.parent.mkdir(parents=True, exist_ok=True)
    code = f"import fcntl; f = open({str(path)!r}, 'w'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    # A process of its own: locks do not keep out the one that has them.
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdin and other.stdout
        other.stdout.readline()
        try:
            yield
        finally:
            other.stdin.write(b"\n")
            other.stdin.close()
