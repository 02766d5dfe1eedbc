"""The rules for nftables let the clients alone reach the service: loaded by nft, tried over a wire.

A node and somebody outside are two network namespaces of this machine with a wire between them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.system import ip_filter
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import run_as_is

#: The service's port, that of its second instance, and another service's.
PORTS, OTHER = (8000, 8001), 9000
NODE = {"192.0.2.1": 24, "198.51.100.1": 24, "2001:db8::1": 64}
OUTSIDE = {"192.0.2.10": 24, "192.0.2.200": 24, "198.51.100.7": 24, "2001:db8::10": 64, "2001:db8::bad": 64}
SERVE = """
import selectors, socket, sys
selector = selectors.DefaultSelector()
for port in map(int, sys.argv[1:]):
    selector.register(socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True), 1)
print("listening", flush=True)
while True:
    for key, _events in selector.select():
        key.fileobj.accept()[0].close()
"""
CONNECT = """
import socket, sys
source, target, port = sys.argv[1:]
try:
    socket.create_connection((target, int(port)), 1, (source, 0)).close()
except TimeoutError:
    sys.exit(1)
"""


class Wire:
    """The node, somebody outside, and the wire."""

    def __init__(self, name: str) -> None:
        self.node, self.outside = f"{name}-node", f"{name}-out"

    def on_node(self, command: Sequence[str]) -> tuple[int, str, str]:
        """Run a command on the node, as the module does."""
        return run_as_is(["ip", "netns", "exec", self.node, *command])

    def set_up(self) -> None:
        """Lay the wire and give both their addresses."""
        for place in (self.node, self.outside):
            ip("netns", "add", place)
            ip("-n", place, "link", "set", "lo", "up")
        ip("-n", self.node, "link", "add", "wire", "type", "veth", "peer", "name", "wire", "netns", self.outside)
        for place, addresses in ((self.node, NODE), (self.outside, OUTSIDE)):
            for address, length in addresses.items():
                # Without nodad an address of version 6 may not be used for a second.
                ip("-n", place, "address", "add", f"{address}/{length}", "dev", "wire", *["nodad"] * (":" in address))
            ip("-n", place, "link", "set", "wire", "up")

    def take_down(self) -> None:
        """Take both away, and the wire with them."""
        for place in (self.node, self.outside):
            subprocess.run(["ip", "netns", "delete", place], check=False, capture_output=True)

    def reaches(self, place: str, source: str, target: str, port: int) -> bool:
        """Tell whether a connection comes about."""
        command = ["ip", "netns", "exec", place, sys.executable, "-c", CONNECT, source, target, str(port)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode in (0, 1) and not done.stderr, done.stderr
        return done.returncode == 0

    def let_in(self, port: int) -> set[str]:
        """Return the addresses outside from which a port of the node is reached."""
        targets = {source: next(node for node in NODE if node[:6] == source[:6]) for source in OUTSIDE}
        return {source for source, node in targets.items() if self.reaches(self.outside, source, node, port)}


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    """A node that serves, and somebody outside."""
    laid = Wire(f"xpu-filter-{os.getpid()}")
    try:
        laid.set_up()
        serve = ["ip", "netns", "exec", laid.node, sys.executable, "-c", SERVE, *map(str, (*PORTS, OTHER))]
        with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as service:
            assert service.stdout is not None and service.stdout.readline() == "listening\n"
            yield laid
            service.kill()
    finally:
        laid.take_down()


def limit(wire: Wire, place: Path, *clients: str) -> None:
    """Do what module service_filter does on the node."""
    ip_filter.expect_nft(wire.on_node)
    place.write_text(ip_filter.rules(PORTS, clients))
    ip_filter.load(wire.on_node, str(place))
    assert ip_filter.loaded(wire.on_node)


@pytest.mark.parametrize(
    ("clients", "let_in"),
    [
        (["192.0.2.10"], {"192.0.2.10"}),
        (["192.0.2.0/24"], {"192.0.2.10", "192.0.2.200"}),
        (["192.0.2.0/25", "192.0.2.10", "2001:db8::10"], {"192.0.2.10", "2001:db8::10"}),
        (["198.51.100.0/24", "2001:db8::/64"], {"198.51.100.7", "2001:db8::10", "2001:db8::bad"}),
        (["203.0.113.0/24"], set()),
    ],
)
def test_the_clients_alone_reach_the_service(wire: Wire, tmp_path: Path, clients: list[str], let_in: set[str]) -> None:
    limit(wire, tmp_path / "clients.nft", *clients)
    assert [wire.let_in(port) for port in PORTS] == [let_in, let_in]
    # The node itself does, and others' services are left alone.
    assert wire.reaches(wire.node, "127.0.0.1", "127.0.0.1", PORTS[0])
    assert wire.reaches(wire.node, "192.0.2.1", "192.0.2.1", PORTS[0])
    assert wire.let_in(OTHER) == set(OUTSIDE)


def test_without_rules_everybody_reaches_it_and_other_tables_stay(wire: Wire, tmp_path: Path) -> None:
    assert wire.on_node(["nft", "add", "table", "inet", "somebodys"])[0] == 0
    limit(wire, tmp_path / "clients.nft", "203.0.113.1")
    limit(wire, tmp_path / "clients.nft", "192.0.2.10")  # again: what was there is replaced
    assert wire.let_in(PORTS[0]) == {"192.0.2.10"}
    assert wire.on_node(["nft", "delete", "table", "inet", ip_filter.TABLE])[0] == 0
    assert not ip_filter.loaded(wire.on_node) and wire.let_in(PORTS[0]) == set(OUTSIDE)
    assert "table inet somebodys" in wire.on_node(["nft", "list", "tables"])[1]


def test_rules_that_nft_does_not_take_are_an_error(wire: Wire, tmp_path: Path) -> None:
    (tmp_path / "clients.nft").write_text("table inet {")
    with pytest.raises(ip_filter.FilterError, match="nft cannot load"):
        ip_filter.load(wire.on_node, str(tmp_path / "clients.nft"))
