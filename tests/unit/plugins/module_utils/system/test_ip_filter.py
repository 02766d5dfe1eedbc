"""systemd's IP filters are tested before use; if they do nothing, nftables' rules are written."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.audit.service import ServiceAudit
from ansible_collections.xpu.fleet.plugins.module_utils.system.ip_filter import (
    FilterError,
    expect_nft,
    load,
    rules,
    systemd_filters,
)


def unfiltered(command: list[str]) -> tuple[int, str, str]:
    """systemd on a node where it cannot filter: it runs the unit all the same."""
    assert command[0] == "systemd-run" and "--property=IPAddressDeny=any" in command
    done = subprocess.run(command[command.index(sys.executable) :], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def filtered(error: str) -> Any:
    """systemd on a node with working filters: sending is an error, or the packet arrives nowhere."""

    def run(command: list[str]) -> tuple[int, str, str]:
        patch = f"import socket\nclass Filtered(socket.socket):\n    {error}\nsocket.socket = Filtered\n"
        done = subprocess.run([sys.executable, "-c", patch + command[-1]], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    return run


def test_the_probe_fails_where_filters_do_not_work() -> None:
    assert systemd_filters(unfiltered) is False


@pytest.mark.parametrize(
    "effect",
    [
        "def sendto(self, *_): raise PermissionError(1, 'Operation not permitted')",
        "def sendto(self, *_): return 1",
        "def recv(self, *_): raise TimeoutError",
    ],
)
def test_the_probe_holds_where_they_do(effect: str) -> None:
    assert systemd_filters(filtered(effect)) is True


@pytest.mark.parametrize("answer", [(1, "", "Failed to connect to bus"), (127, "", "no systemd-run"), (0, "", "")])
def test_a_probe_that_cannot_be_made_is_an_error(answer: tuple[int, str, str]) -> None:
    with pytest.raises(FilterError, match="cannot check systemd's IP filters with systemd-run"):
        systemd_filters(lambda _command: answer)


def test_rules_let_the_clients_alone_reach_the_ports() -> None:
    text = rules([8000, 8001], ["192.0.2.0/24", "192.0.2.7", "198.51.100.9", "2001:db8::/64"])
    assert "set clients4 { type ipv4_addr; flags interval; elements = { 192.0.2.0/24, 198.51.100.9/32 } }" in text
    assert "set clients6 { type ipv6_addr; flags interval; elements = { 2001:db8::/64 } }" in text
    assert 'tcp dport { 8000, 8001 } iifname != "lo" ip saddr != @clients4 drop' in text
    assert text.index("delete table inet xpu_fleet") < text.index("table inet xpu_fleet {")


@pytest.mark.parametrize(("clients", "empty"), [(["192.0.2.1"], 6), (["2001:db8::1"], 4)])
def test_who_is_in_no_list_is_not_let_in(clients: list[str], empty: int) -> None:
    kind = {4: "ipv4_addr", 6: "ipv6_addr"}[empty]
    assert f"set clients{empty} {{ type {kind}; flags interval; }}" in rules([1], clients)


def test_what_nft_says_is_told() -> None:
    with pytest.raises(FilterError, match="Operation not permitted"):
        load(lambda _command: (1, "", "Error: Operation not permitted"), "/x")
    with pytest.raises(FilterError, match=r"do nothing on this node.*Install the package nftables"):
        expect_nft(lambda _command: (127, "", ""))
    with pytest.raises(FilterError, match=r"do nothing on this node.*cache initialization failed.*CAP_NET_ADMIN"):
        expect_nft(lambda _command: (1, "", "netlink: Error: cache initialization failed: Operation not permitted"))


LIMITED = {"ports": [8000], "clients": ["192.0.2.0/24"]}


class Node:
    """A node on which systemd filters or does not, and nft has rules or not."""

    by_root = True

    def __init__(self, filters: bool, text: str, has_table: bool) -> None:
        self._filters, self._text, self._has_table = filters, text, has_table
        self.expected: dict[str, Any] = {}

    def run(self, command: list[str]) -> tuple[int, str, str]:
        """Answer the probe and nft."""
        return (10 if self._filters else 11) if command[0] == "systemd-run" else int(not self._has_table), "", ""

    def text(self, _path: str) -> str:
        """Return the rules."""
        return self._text


@pytest.mark.parametrize(
    ("node", "found"),
    [
        (Node(True, "", False), ""),
        (Node(False, rules([8000], ["192.0.2.0/24"]), True), ""),
        (Node(False, rules([8000], ["192.0.2.0/24"]), False), "everybody: systemd's IP filters do nothing"),
        (Node(False, rules([8000], ["192.0.2.0/25"]), True), "everybody"),
        (Node(False, "", False), "everybody"),
    ],
)
def test_the_audit_tries_the_filters(node: Any, found: str) -> None:
    report = Report()
    ServiceAudit(node, {"template": "xpuserve", "instances": [], "filter": LIMITED})._filter(report, LIMITED)
    assert [finding.found[: len(found)] for finding in report.findings] == ([found] if found else [])
    assert report.looked_at == 1


def test_without_root_it_is_said_that_they_were_not_tried() -> None:
    node: Any = Node(True, "", False)
    node.by_root = False
    report = Report()
    ServiceAudit(node, {"template": "x", "instances": [], "filter": LIMITED})._filter(report, LIMITED)
    assert report.status == "not_looked_at" and report.unseen[0].what == "addresses that may connect"
