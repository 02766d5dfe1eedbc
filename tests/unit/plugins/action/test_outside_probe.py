"""A service that lets the controller in is found where the controller is none of its clients."""

from __future__ import annotations

import socket
from pathlib import Path

from ansible_collections.xpu.fleet.tests.unit.plugins.support.action_run import run_action


def test_who_is_let_in_and_should_not_be_is_found(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        told = run_action("outside_probe", tmp_path, host="127.0.0.1", port=port, clients=["192.0.2.0/24"])
        client = run_action("outside_probe", tmp_path, host="127.0.0.1", port=port, clients=["127.0.0.0/8"])
    assert (told["outcome"], told["source"], told["changed"]) == ("let in", "127.0.0.1", False)
    assert (client["outcome"], client["changed"]) == ("a client", False)
