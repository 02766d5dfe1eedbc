"""Rules for nftables exist only where systemd's IP filters do nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

OPTIONS: dict[str, Any] = {"ports": [8000], "clients": ["192.0.2.0/24"]}


class Node:
    """A node with stand-ins for the commands that limit who may connect."""

    def __init__(self, directory: Path) -> None:
        self.root, self._commands, self.table = directory / "root", directory / "commands", directory / "table"
        self.rules = self.root / "etc/xpuserve/clients.nft"
        self.drop_in = self.root / "etc/systemd/system/xpuserve@.service.d/clients.conf"
        self._commands.mkdir()
        self.root.mkdir()
        self.set("systemctl", "")
        acts = f"case $1 in -f) touch {self.table} ;; delete) rm {self.table} ;; esac"
        self.set("nft", f"{acts}\n[ $2 != table ] || [ -e {self.table} ]")

    def set(self, command: str, script: str) -> None:
        """Let a command do something else."""
        path = self._commands / command
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def filters(self, works: bool) -> None:
        """Let systemd filter or not."""
        self.set("systemd-run", f"exit {10 if works else 11}")

    def run(self, **options: Any) -> dict[str, Any]:
        """Run the module."""
        return run_module("service_filter", path=str(self._commands), at=self.root, **options)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_where_systemd_filters_nothing_is_written(node: Node) -> None:
    node.filters(True)
    found = node.run(**OPTIONS)
    assert (found["changed"], found["by"]) == (False, "systemd") and not node.rules.exists()


def test_where_it_does_not_nftables_does_once(node: Node) -> None:
    node.filters(False)
    foreseen = node.run(check=True, **OPTIONS)
    assert foreseen["changed"] and "192.0.2.0/24" in foreseen["diff"][0]["after"] and not node.rules.exists()
    assert not node.run(write=False, **OPTIONS)["changed"]
    found = node.run(**OPTIONS)
    assert (found["changed"], found["by"]) == (True, "nftables") and node.table.exists()
    assert "ExecStartPre=+/usr/sbin/nft -f /etc/xpuserve/clients.nft" in node.drop_in.read_text()
    assert not node.run(**OPTIONS)["changed"]
    node.table.unlink()  # somebody took the rules away
    assert node.run(**OPTIONS)["changed"] and node.table.exists()


@pytest.mark.parametrize("options", [{}, OPTIONS])
def test_rules_that_are_no_longer_needed_go(node: Node, options: dict[str, Any]) -> None:
    node.filters(False)
    node.run(**OPTIONS)
    node.filters(True)
    assert node.run(**options)["changed"]
    assert not (node.rules.exists() or node.drop_in.exists() or node.table.exists())
    assert not node.run(**options)["changed"]


def test_a_node_that_has_neither_is_refused(node: Node) -> None:
    node.filters(False)
    node.set("nft", "echo 'Operation not permitted' >&2; exit 1")
    failed = node.run(write=False, **OPTIONS)
    assert failed["failed"] and "nor may it use nftables (Operation not permitted)" in failed["msg"]


def test_filters_that_cannot_be_tried_are_an_error(node: Node) -> None:
    node.set("systemd-run", "exit 1")
    refused = node.run(**OPTIONS)
    assert refused["failed"] and "cannot check systemd's IP filters with systemd-run" in refused["msg"]
