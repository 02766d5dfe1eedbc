"""A gateway's requests to a node are read from HAProxy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

HEAD = "# pxname,svname,qcur,qmax,scur,smax,status,"


@pytest.fixture
def haproxy(tmp_path: Path) -> Iterator[Callable[..., dict[str, Any]]]:
    """Run the module against an admin socket that answers with these rows."""
    rows: list[str] = []
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    assert connection.recv(100) == b"show stat\n"
                    connection.sendall("\n".join([HEAD, *rows, ""]).encode())

        threading.Thread(target=serve, daemon=True).start()

        def run(*given: str, instances: int = 1) -> dict[str, Any]:
            rows[:] = given
            return run_module("gateway_servers", node="n 1", instances=instances, socket=str(path))

        yield run
        listener.shutdown(socket.SHUT_RDWR)


def test_requests_of_a_drained_instance_are_waited_for(haproxy: Callable[..., dict[str, Any]]) -> None:
    found = haproxy("m,n_1-0,0,0,2,3,DRAIN (agent),", "m,n_10-0,0,0,9,9,UP,")
    assert found["servers"] == {"m/n_1-0": {"status": "DRAIN (agent)", "sessions": 2, "queued": 0}}
    assert not found["quiet"]
    assert haproxy("m,n_1-0,0,0,0,3,DRAIN (agent),")["quiet"]
    assert haproxy("m,n_1-0,0,0,0,3,DOWN 1/2,")["quiet"]


def test_an_instance_that_still_gets_requests_is_not_quiet(haproxy: Callable[..., dict[str, Any]]) -> None:
    found = haproxy("m,n_1-0,0,0,0,3,UP,", "m,n_1-1,0,0,0,0,DRAIN,", instances=2)
    assert (found["quiet"], found["up"]) == (False, False)
    assert haproxy("m,n_1-0,0,0,0,3,UP 1/2,", "m,n_1-1,0,0,1,0,UP,", instances=2)["up"]


@pytest.mark.parametrize("others", [["m,n_1-0,0,0,0,3,DRAIN,"], ["m,n_1-0,0,0,9,9,DRAIN,"]])
def test_an_instance_is_quiet_for_all_its_models_or_not_at_all(
    haproxy: Callable[..., dict[str, Any]], others: list[str]
) -> None:
    for rows in ([*others, "e,n_1-0,0,0,0,3,UP,"], ["e,n_1-0,0,0,0,3,UP,", *others]):
        found = haproxy(*rows)
        assert (found["quiet"], found["up"]) == (False, False)


def test_requests_that_wait_for_it_count(haproxy: Callable[..., dict[str, Any]]) -> None:
    assert not haproxy("m,n_1-0,1,0,0,3,DRAIN (agent),")["quiet"]


def test_what_the_gateway_does_not_know_gets_nothing(haproxy: Callable[..., dict[str, Any]]) -> None:
    assert haproxy("m,other-0,0,0,1,1,UP,")["quiet"]


def test_a_gateway_that_does_not_answer_is_named(tmp_path: Path) -> None:
    found = run_module("gateway_servers", node="n", instances=1, socket=str(tmp_path / "none"))
    assert found["failed"] and "HAProxy does not answer at " in found["msg"]
