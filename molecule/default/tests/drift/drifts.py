"""What cases of drift are, and how each is tried: change one thing, audit, run site.yml, compare the whole node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from default.tests.snapshots import differences, snapshot

#: What the service writes.
PASSING = "/var/lib/xpuserve/.*"


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


def endure(drift: Drift, host: Any, audit: Callable[[], Any], site: Callable[[], Any]) -> None:
    """Let one thing drift; it has to be named under its layer, put right by a run, and nothing else may have moved."""
    before = snapshot(host, PASSING)
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
    assert differences(before, snapshot(host, PASSING)) == []
