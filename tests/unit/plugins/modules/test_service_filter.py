"""Rules for nftables are written once where systemd's filters do nothing, and taken away where nobody needs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.system.ip_filter import RULES
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

COMMANDS = {
    # Runs a unit without its filters: as systemd in a container does.
    "systemd-run": 'while [ $# -gt 0 ]; do case "$1" in */python*) break ;; esac; shift; done; exec "$@"',
    "nft": (
        'case "$1" in list) [ "$2" = tables ] || [ -e {at}/loaded ] ;; delete) rm -f {at}/loaded ;; '
        "-f) touch {at}/loaded ;; esac"
    ),
    "systemctl": ":",
}


class Node:
    """A node on which systemd's filters do nothing."""

    def __init__(self, directory: Path) -> None:
        self.root, self.commands = directory / "root", directory / "commands"
        self.commands.mkdir()
        for name, script in COMMANDS.items():
            (self.commands / name).write_text(f"#!/bin/sh\n{script.replace('{at}', str(directory))}\n")
            (self.commands / name).chmod(0o755)

    def run(self, *clients: str, check: bool = False) -> dict[str, Any]:
        return run_module(
            "service_filter", check=check, path=str(self.commands), at=self.root, ports=[8000], clients=list(clients)
        )


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_rules_are_written_once_and_taken_away(node: Node) -> None:
    rules = node.root / RULES
    foreseen = node.run("192.0.2.0/24", check=True)
    assert foreseen["changed"] and foreseen["by"] == "nftables" and not rules.exists()
    assert node.run("192.0.2.0/24")["changed"] and "192.0.2.0/24" in rules.read_text()
    assert not node.run("192.0.2.0/24")["changed"]
    everybody = node.run()
    assert everybody["changed"] and everybody["by"] == "nothing" and not rules.exists()
    assert not node.run()["changed"]


def test_filters_that_cannot_be_tried_are_an_error(node: Node) -> None:
    (node.commands / "systemd-run").write_text("#!/bin/sh\nexit 1\n")
    refused = node.run("192.0.2.0/24")
    assert refused["failed"] and "cannot be tried with systemd-run" in refused["msg"]
