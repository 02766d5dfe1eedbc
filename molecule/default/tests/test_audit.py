"""The audit of converged nodes: everything is in order; what is then changed by hand is found, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

testinfra_hosts = ["ansible://arc", "ansible://native", "ansible://cpu"]


@pytest.fixture
def audit(audit_of: Any, tmp_path: Path) -> Any:
    """Run audit.yml on the node; what the run said, and the node's layers."""

    def run() -> tuple[Any, dict[str, Any]]:
        said = audit_of({"xpu_audit_json": str(tmp_path / "audit.json")})
        report = json.loads((tmp_path / "audit.json").read_text(encoding="utf-8"))
        (node,) = report["nodes"].values()
        return said, node["layers"]

    return run


@pytest.fixture
def unmasked(host: Any) -> Iterator[str]:
    """The unit of the service, which is as it was afterwards."""
    yield "xpuserve@0.service"
    host.check_output("rm -f /etc/systemd/system/xpuserve@0.service && systemctl daemon-reload")


def test_a_converged_node_is_in_order(audit: Any) -> None:
    said, layers = audit()
    assert said.status == 0, said.output
    assert {layer["status"] for layer in layers.values()} <= {"ok", "not_applicable"}
    assert layers["service"]["status"] == layers["python"]["status"] == "ok"


def test_a_masked_unit_is_found_under_the_service(host: Any, audit: Any, unmasked: str) -> None:
    host.check_output(f"systemctl mask {unmasked}")
    said, layers = audit()
    assert said.status == 1, said.output
    others = {name for name, layer in layers.items() if layer["status"] not in ("ok", "not_applicable")}
    assert others == {"service"}, said.output
    assert "xpuserve@0" in json.dumps(layers["service"]["findings"])
