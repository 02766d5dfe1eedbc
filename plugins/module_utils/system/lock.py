"""The lock of a fleet: a file on each host that keeps it."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import write_durably
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: Fields of a lock, all text: the run, its user, the machine, the reason, the start, and when the run was last
#: alive.
KEYS = ("run", "owner", "host", "machine", "boot", "process", "started", "purpose", "since", "seen")
Lock = dict[str, str]


class LockError(FleetError):
    """Somebody else has the lock."""


def read(path: Path) -> Lock:
    """Return the lock, {} if it is free. An unreadable one is free: the power was lost during its writing."""
    try:
        said = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ValueError):
        return {}
    return {key: str(said.get(key, "")) for key in KEYS} if isinstance(said, dict) and said.get("run") else {}


def take(path: Path, mine: Mapping[str, str], replaces: str = "") -> Lock:
    """Take the lock, or renew it; return the previous one.

    ``replaces`` is the run whose lock may be taken over. Raises LockError if another run holds it.
    """
    with _alone(path):
        before = read(path)
        if before and before["run"] not in (mine["run"], replaces):
            raise LockError(f"{before['owner']} on {before['host']} has the lock since {before['since']}.")
        since = before["since"] if before and before["run"] == mine["run"] else mine["seen"]
        write_durably(path, json.dumps({**mine, "since": since}).encode() + b"\n")
        return before


def release(path: Path, run: str) -> bool:
    """Remove the lock if that run holds it; return whether it did."""
    with _alone(path):
        if read(path).get("run") != run:
            return False
        path.unlink()
        return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
