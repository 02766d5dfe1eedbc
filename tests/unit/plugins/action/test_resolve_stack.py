"""The stack is chosen on the controller; what does not fit is refused in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.tests.unit.plugins.support.action_run import run_action

ROOT = Path(__file__).resolve().parents[4]


def node(**changes: Any) -> dict[str, Any]:
    """Options for a node with Debian 12 and no GPU."""
    options = {
        "directory": str(ROOT / "roles/stack/vars"),
        "gpus": [],
        "container": False,
        "secure_boot": False,
        "distribution": "Debian",
        "release": "12",
        "codename": "bookworm",
        "kernel": "6.1.0-50-amd64",
        "architecture": "x86_64",
    }
    return {**options, **changes}


def test_a_node_without_a_gpu_gets_the_stack_for_the_processor(tmp_path: Path) -> None:
    chosen = run_action("resolve_stack", tmp_path, **node())
    assert not chosen["changed"] and chosen["stack"]["name"] == "cpu"


def test_a_stack_that_does_not_exist_is_named(tmp_path: Path) -> None:
    refused = run_action("resolve_stack", tmp_path, **node(stack="arc"))
    assert refused["failed"] and "arc-647" in refused["msg"]
