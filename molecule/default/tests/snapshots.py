"""A whole node at one time, and what is not as it was at another."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).parents[1] / "files/snapshot.py"
#: What differs all the same: the tools that change users keep the former files, Ansible its directory, systemd what it
#: counts.
PASSING = r"/etc/(group|gshadow|passwd|shadow)-|/(root|home/[^/]+)/\.ansible(/.*)?|/var/lib/systemd/.*"


def snapshot(host: Any, passing: str = "", touched: bool = False) -> dict[str, Any]:
    """Return everything that a node consists of, but for what passes (a pattern of more paths).

    ``touched`` adds when each file and directory was changed last.
    """
    words = "touched" if touched else ""
    said = host.check_output("python3 -B -c %s %s", PROGRAM.read_text(encoding="utf-8"), words)
    return settled(json.loads(said), passing)


def settled(found: dict[str, Any], passing: str = "") -> dict[str, Any]:
    """Return a snapshot without what passes."""
    passes = re.compile(f"{PASSING}|{passing}" if passing else PASSING)
    return {**found, "files": {name: words for name, words in found["files"].items() if not passes.fullmatch(name)}}


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return one line for everything that is not as it was."""
    lines = []
    for kind, was in before.items():
        one, other = (side if isinstance(side, dict) else dict.fromkeys(side, "there") for side in (was, after[kind]))
        names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
        lines += [f"{kind} {name}: {one.get(name)} -> {other.get(name)}" for name in names]
    return lines
