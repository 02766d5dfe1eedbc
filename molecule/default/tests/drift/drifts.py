"""Cases of drift and their procedure: change one thing, audit, run site.yml, compare the whole node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from default.tests.snapshots import differences, snapshot

#: Files that the service writes, and the record of proven settings: a run of molecule has --skip-tags, and writes none.
PASSING = r"/var/lib/xpuserve/.*|/var/lib/xpu-fleet/proven\.json"
#: The service's role includes the model's.
SERVICE = frozenset({"model", "inference"})
#: The roles that run after a layer drifted: its own, and those of layers that build on it. On these nodes the
#: kernel belongs to the host, and the platform changes only where no layer builds on it.
ROLES = {
    "platform": frozenset(),
    "repository": SERVICE | {"graphics_repository", "gpu_driver"},
    "driver": SERVICE | {"gpu_driver"},
    "access": SERVICE | {"render_access"},
    "oneapi": SERVICE | {"oneapi"},
    "python": SERVICE | {"python_runtime"},
    "model": SERVICE,
    "service": SERVICE,
}
#: Roles that other roles include.
HELPERS = {"stack", "pinned_packages", "node_reboot"}


@dataclass(frozen=True)
class Drift:
    """A change of a node, and where and how the audit has to report it."""

    does: str
    layer: str
    says: str
    #: Layers that may drift as well: they depend on the changed part.
    also: frozenset[str] = frozenset()


_FASTAPI = "$(find /opt/xpu/engines/openvino/lib -path '*site-packages/fastapi/__init__.py')"
#: Possible damage to the engine's environment, on every Python of the nodes.
ENGINE_FILES = {
    name: Drift(does, "python", says, frozenset({"service"}))
    for name, does, says in (
        ("engine-file-edited", f"echo '# by hand' >> {_FASTAPI}", "fastapi"),
        ("engine-file-altered", f"sed -i 's/a/b/' {_FASTAPI}", "fastapi"),
        ("engine-file-deleted", f"rm {_FASTAPI}", "fastapi"),
        ("engine-package-lost", "rm -r /opt/xpu/engines/openvino/lib/python3*/site-packages/uvicorn*", "uvicorn"),
        ("interpreter-lost", "rm /opt/xpu/engines/openvino/bin/python", "/opt/xpu/engines/openvino"),
    )
}


def edited(path: str) -> str:
    """Return a command that adds a line to a file."""
    return f"printf '\\n# by hand\\n' >> {path}"


def endure(drift: Drift, host: Any, audit: Callable[[], Any], site: Callable[[], Any]) -> None:
    """Apply one change; the audit has to report it under its layer, and a run has to repair it.

    No role of another layer may run, and nothing else on the node may change.
    """
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
    assert run.roles - HELPERS == ROLES[drift.layer], run.output
    assert {layer["status"] for layer in audit().values()} <= {"ok", "not_applicable"}
    moved = differences(before, snapshot(host, PASSING))
    assert not moved, moved
