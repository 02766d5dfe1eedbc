"""A service that accepts the controller is reported if the controller is not one of its clients."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.action.outside_probe import probe
from ansible_collections.xpu.fleet.tests.unit.plugins.support.action_run import run_action


def test_who_is_let_in_and_should_not_be_is_found(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        told = run_action("outside_probe", tmp_path, host="127.0.0.1", port=port, clients=["192.0.2.0/24"])
        client = run_action("outside_probe", tmp_path, host="127.0.0.1", port=port, clients=["127.0.0.0/8"])
    assert (told["outcome"], told["source"], told["changed"]) == ("let in", "127.0.0.1", False)
    assert (client["outcome"], client["changed"]) == ("a client", False)


@pytest.mark.parametrize(
    ("clients", "outcome"),
    [
        (["127.0.0.0/8"], "a client"),
        (["192.0.2.7", "127.0.0.1"], "a client"),
        (["192.0.2.0/24"], "let in"),
        (["::/0"], "let in"),
    ],
)
def test_from_outside_it_is_seen_who_is_let_in(clients: list[str], outcome: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert probe("127.0.0.1", server.getsockname()[1], clients) == (outcome, "127.0.0.1")


def test_who_is_kept_out_is_kept_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert probe("127.0.0.1", port, ["192.0.2.0/24"])[0] == "kept out"
    assert probe("no.such.host.invalid", port, ["192.0.2.0/24"]) == ("kept out", "")
