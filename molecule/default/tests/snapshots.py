"""Snapshots of a whole node, and their differences."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parents[1] / "files/snapshot.py"
#: Differences to ignore: backups of user databases, daily ones of packages, Ansible's directory, systemd's counters.
PASSING = r"/etc/(group|gshadow|passwd|shadow)-|/var/backups/.*|/(root|home/[^/]+)/\.ansible(/.*)?|/var/lib/systemd/.*"


def snapshot(host: Any, passing: str = "", touched: bool = False) -> dict[str, Any]:
    """Return a snapshot of a node without transient files (and a pattern of more paths).

    ``touched`` adds the last change of each file and directory.
    """
    words = "touched" if touched else ""
    said = host.check_output("python3 -B -c %s %s", PROGRAM.read_text(encoding="utf-8"), words)
    return settled(json.loads(said), passing)


def settled(found: dict[str, Any], passing: str = "") -> dict[str, Any]:
    """Return a snapshot without transient files."""
    passes = re.compile(f"{PASSING}|{passing}" if passing else PASSING)
    return {**found, "files": {name: words for name, words in found["files"].items() if not passes.fullmatch(name)}}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return one line for every difference."""
    lines = []
    for kind, was in before.items():
        one, other = (side if isinstance(side, dict) else dict.fromkeys(side, "there") for side in (was, after[kind]))
        names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
        lines += [f"{kind} {name}: {one.get(name)} -> {other.get(name)}" for name in names]
    return lines
