"""Addresses and ports on which the service can listen, and its valid clients."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that this process listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_refused_with_its_owner(taken: int) -> None:
    result = run_module("listening_address", check=True, host="127.0.0.1", ports=[taken], unit="xpuserve@")
    assert result["failed"]
    assert f"port {taken} is used by" in result["msg"] and f"(process {os.getpid()})" in result["msg"]


def test_another_address_is_not_in_the_way(taken: int) -> None:
    assert not run_module("listening_address", host="127.0.0.2", ports=[taken], unit="x@").get("failed")
    assert run_module("listening_address", host="0.0.0.0", ports=[taken], unit="x@")["failed"]  # noqa: S104


def test_clients_are_addresses_or_networks() -> None:
    options: dict[str, Any] = {"host": "127.0.0.1", "ports": [], "unit": "x@"}
    good = ["192.0.2.7", "192.0.2.0/24", "2001:db8::/32"]
    assert not run_module("listening_address", clients=good, **options).get("failed")
    refused = run_module("listening_address", clients=[*good, "office", "192.0.2.0/255.255.255.0"], **options)
    assert refused["failed"] and "office, 192.0.2.0/255.255.255.0:" in refused["msg"]


def test_a_port_that_is_none_is_refused() -> None:
    assert run_module("listening_address", host="127.0.0.1", ports=[70000], unit="x@")["failed"]
