"""The identity of this Ansible run, and whether another run on this machine is still alive."""

from __future__ import annotations

import getpass
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc")
MACHINE = Path("/etc/machine-id")
#: Ansible imports this before it starts tasks, which are separate processes.
PROCESS = os.getpid()


def owner(purpose: str, process: int = PROCESS) -> dict[str, str]:
    """Return the content of this run's lock."""
    here = _here()
    began = _started(process)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {
        **here,
        "run": f"{here['host']}:{here['boot']}:{process}:{began}",
        "owner": _user(),
        "process": str(process),
        "started": began,
        "purpose": purpose,
        "since": now,
        "seen": now,
    }


def has_ended(lock: Mapping[str, str]) -> bool:
    """Tell whether the run that holds a lock has certainly ended: it was on this machine, and is gone."""
    here = _here()
    if not here["machine"] or (lock["host"], lock["machine"]) != (here["host"], here["machine"]):
        return False
    if lock["boot"] != here["boot"]:
        return True
    return not lock["process"].isdecimal() or _started(int(lock["process"])) != lock["started"]


def _here() -> dict[str, str]:
    return {
        "host": platform.node(),
        "machine": _read(MACHINE),
        "boot": _read(PROC / "sys/kernel/random/boot_id"),
    }


def _started(process: int) -> str:
    """Return when a process began, in the kernel's ticks; "" if it does not exist, or without a proc file system."""
    fields = _read(PROC / f"{process}/stat").rpartition(")")[2].split()
    # A zombie is over, too.
    return fields[19] if len(fields) > 19 and fields[0] != "Z" else ""


def _user() -> str:
    try:
        return os.environ.get("SUDO_USER") or getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
