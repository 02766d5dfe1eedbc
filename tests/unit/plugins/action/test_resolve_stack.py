"""The stack is chosen on the controller; what does not fit is refused in one message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.action_run import run_action

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """The files of a node with Debian 12 and no GPU."""
    root = tmp_path / "node"
    (root / "etc").mkdir(parents=True)
    (root / "etc/os-release").write_text(
        'ID=debian\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n'
    )
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/osrelease").write_text("6.1.0-50-amd64\n")
    return root


def resolved(node: Path, folder: Path, **options: Any) -> dict[str, Any]:
    """What comes of the task for that node."""
    return run_action("resolve_stack", folder, directory=str(ROOT / "roles/stack/vars"), root=str(node), **options)


def test_a_node_without_a_gpu_gets_the_stack_for_the_processor(node: Path, tmp_path: Path) -> None:
    chosen = resolved(node, tmp_path)
    assert not chosen["changed"] and chosen["stack"]["name"] == "cpu"


def test_a_stack_that_does_not_exist_is_named(node: Path, tmp_path: Path) -> None:
    refused = resolved(node, tmp_path, stack="arc")
    assert refused["failed"] and "arc-647" in refused["msg"]
