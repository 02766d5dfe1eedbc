"""A fleet in every state, as playbooks/audit.yml puts it together; its earlier states too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.fleet import fleet_report
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)

NOW = "2026-11-24T01:00:00Z"
CARD = {
    **{"name": "Intel Arc A770", "id": "8086:56a0", "address": "0000:03:00.0", "driver": "i915"},
    **{"driver_version": "5.19.0-41-generic", "memory_bytes": 16 * 1024**3, "family": "arc"},
}
HELD = {"what": "hold of x", "expected": "held", "found": "not held"}


def layer(status: str = "ok", **more: Any) -> dict[str, Any]:
    """What is found in one layer."""
    sound = {"reason": "", "findings": [], "unseen": [], "looked_at": 5, "versions": {"x": "1.0"}, "seconds": 0.25}
    return {"status": status, **sound, **more}


def drift(*findings: dict[str, str]) -> dict[str, Any]:
    """A layer with findings."""
    return layer("drift", findings=list(findings or (HELD,)))


def node(**more: Any) -> dict[str, Any]:
    """What is found on a node that is in order but for some layers."""
    layers = {name: more.get(name, layer()) for name in NAMES}
    return {
        **{"stack": "arc-647", "engine": "bigdl on gpu", "system": "Ubuntu 22.04", "kernel": "5.19.0-41-generic"},
        **{"gpus": [CARD["name"]], "cards": [CARD], "layers": layers},
    }


def report(audits: dict[str, Any], *unreached: str, left_out: tuple[str, ...] = (), time: str = NOW) -> dict[str, Any]:
    """The report of these nodes."""
    return {"time": time, **fleet_report(audits, [*audits, *unreached], left_out)}


def every_state() -> dict[str, Any]:
    """Six nodes: in order, drift, a missing layer, something not looked at, no stack, not reached; one left out."""
    absent = {"what": "package intel-oneapi-mkl", "expected": "2023.2.0-49495", "found": "absent"}
    unseen = {"what": "GRUB's default", "why": "/boot/grub/grub.cfg can only be read by root"}
    running = {"what": "running kernel", "expected": "5.19.0-41-generic", "found": "6.2.0-26-generic"}
    digests = [f"sha256 {letter * 64}" for letter in "ab"]
    changed = {"what": "content of /etc/xpuserve/stack.env", "expected": digests[0], "found": digests[1]}
    audits = {
        "arc1": node(),
        "arc2": node(kernel=drift(running, HELD), service=drift(changed)),
        "arc3": node(oneapi=layer("missing", findings=[absent])),
        "arc4": node(
            kernel=layer("not_looked_at", unseen=[unseen]), oneapi=layer("not_applicable", reason="the stack has none")
        ),
        "old5": {"reason": "Resolve the stack: No stack fits this node. GPUs found: none. Distribution: Ubuntu 18.04."},
    }
    return report(audits, "arc6", left_out=("flex1",))


def save(folder: Path, time: str, audits: dict[str, Any], *unreached: str) -> Path:
    """Write an earlier report as the playbook does."""
    path = folder / f"{time.replace(':', '')}.json"
    path.write_text(json.dumps(report(audits, *unreached, time=time)))
    return path
