"""What cases of drift are, and how each is tried: change one thing, audit, run site.yml, compare the whole node."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SNAPSHOT = Path(__file__).parents[2] / "files/snapshot.py"
#: What differs all the same: the tools that change users keep the former files; the service and Ansible write theirs.
PASSING = (
    *("/etc/group-", "/etc/gshadow-", "/etc/passwd-", "/etc/shadow-", "/var/lib/systemd/", "/root/.ansible", "/home/"),
    "/var/lib/xpuserve/",
)


@dataclass(frozen=True)
class Drift:
    """What somebody does to a node, and where and how the audit has to name it."""

    does: str
    layer: str
    says: str
    #: Layers that may have something to say besides: what they need is gone.
    also: frozenset[str] = frozenset()


def edited(path: str) -> str:
    """Return a command that adds a line to a file."""
    return f"printf '\\n# by hand\\n' >> {path}"


def snapshot(host: Any) -> dict[str, Any]:
    """Return everything that the node consists of."""
    found: dict[str, Any] = json.loads(host.check_output("python3 -c %s", SNAPSHOT.read_text(encoding="utf-8")))
    return found


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Return what is not as it was."""
    found = []
    for kind, was in before.items():
        one, other = (side if isinstance(side, dict) else dict.fromkeys(side, "there") for side in (was, after[kind]))
        for name in sorted({*one, *other}):
            if one.get(name) != other.get(name) and not name.startswith(PASSING):
                found.append(f"{kind} {name}: {one.get(name)} -> {other.get(name)}")
    return found


def endure(drift: Drift, host: Any, audit: Callable[[], Any], site: Callable[[], Any]) -> None:
    """Let one thing drift; it has to be named under its layer, put right by a run, and nothing else may have moved."""
    before = snapshot(host)
    host.check_output(drift.does)
    layers = audit()
    found = {name for name, layer in layers.items() if layer["status"] not in ("ok", "not_applicable")}
    assert drift.layer in found <= {drift.layer, *drift.also}, layers
    named = [entry for entry in layers[drift.layer]["findings"] if drift.says in entry["what"]]
    assert named, layers[drift.layer]
    assert all(entry["expected"] != entry["found"] for entry in named)
    run = site()
    assert run.status == 0, run.output
    assert {layer["status"] for layer in audit().values()} <= {"ok", "not_applicable"}
    assert differences(before, snapshot(host)) == []
