"""The system of a machine, on which the choice of its stack depends beside its GPUs."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

OS_RELEASE = "etc/os-release"
#: Ansible's names of the supported distributions, by the ID of os-release(5).
_NAMES = {"debian": "Debian", "ubuntu": "Ubuntu"}


class SystemReadError(FleetError):
    """The system's description of itself is malformed; the message says where."""


def system(root: Path = Path("/")) -> dict[str, str]:
    """Return ``distribution``, ``release``, ``codename``, ``kernel`` (the running one) and ``architecture``.

    Each is "" if unknown. Raises SystemReadError if os-release(5) is damaged.
    """
    told = _os_release(root)
    return {
        "distribution": _NAMES.get(told.get("ID", ""), told.get("NAME", "")),
        "release": told.get("VERSION_ID", ""),
        "codename": told.get("VERSION_CODENAME", ""),
        "kernel": _text(root / "proc/sys/kernel/osrelease").strip(),
        "architecture": os.uname().machine,
    }


def _os_release(root: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in _text(root / OS_RELEASE).splitlines() if not line.startswith("#"))
    try:
        return {name: " ".join(shlex.split(value)) for name, equals, value in lines if equals}
    except ValueError as error:
        raise SystemReadError(f"/{OS_RELEASE} is damaged ({error}); restore it") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
