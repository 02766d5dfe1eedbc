"""Who may change a fleet now: a file on each host that keeps the lock."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import write_durably
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: What a lock says, all of it text: which run has it, whose it is, on which machine, why, since when, and when that run
#: was heard from last.
KEYS = ("run", "owner", "host", "machine", "boot", "process", "started", "purpose", "since", "seen")
Lock = dict[str, str]


class LockError(FleetError):
    """Somebody else has the lock."""


def read(path: Path) -> Lock:
    """Return the lock, {} where nobody has it. What cannot be read is nobody's: power was lost as it was written."""
    try:
        said = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (FileNotFoundError, ValueError):
        return {}
    return {key: str(said.get(key, "")) for key in KEYS} if isinstance(said, dict) and said.get("run") else {}


def take(path: Path, mine: Mapping[str, str], replaces: str = "") -> Lock:
    """Take the lock, or say once more that the run is alive; return the lock that was there.

    ``replaces`` is the run whose lock may be taken over. Raises LockError where another one has it.
    """
    with _alone(path):
        before = read(path)
        if before and before["run"] not in (mine["run"], replaces):
            raise LockError(f"{before['owner']} on {before['host']} has the lock since {before['since']}.")
        since = before["since"] if before and before["run"] == mine["run"] else mine["seen"]
        write_durably(path, json.dumps({**mine, "since": since}).encode() + b"\n")
        return before


def release(path: Path, run: str) -> bool:
    """Remove the lock where that run has it; return whether it had."""
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
