"""Who holds a port."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.system.listeners import address_problem, listeners, overlaps


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_the_owner_of_a_port_is_found(taken: int) -> None:
    (found,) = listeners(taken)
    assert (found.address, found.pid) == ("127.0.0.1", os.getpid())


@pytest.mark.parametrize(
    ("listening", "wanted", "stands"),
    [
        ("0.0.0.0", "127.0.0.1", True),  # noqa: S104
        ("::", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("::ffff:10.0.0.1", "10.0.0.1", True),
    ],
)
def test_addresses_overlap(listening: str, wanted: str, stands: bool) -> None:
    assert overlaps(listening, wanted) is stands


def test_an_address_that_the_node_does_not_have_is_refused() -> None:
    assert address_problem("127.0.0.1") == ""
    assert "no IP address" in address_problem("localhost")
    assert "cannot listen" in address_problem("192.0.2.1")
