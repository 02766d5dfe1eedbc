"""Instances are drained by a file that outlives them, and their requests are reported."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.certificates import make
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

#: Answers as systemctl does where instances 0 and 1 run.
SYSTEMCTL = """#!/bin/sh
case "$1" in
  list-units) for each in 0 1; do echo "xpuserve@$each.service loaded active running"; done ;;
esac
"""


class Node:
    """A node with a service that has so many requests."""

    def __init__(self, directory: Path, url: str) -> None:
        self.files, self._commands, self.url = directory / "etc", directory / "bin", url
        self.files.mkdir()
        self._commands.mkdir()
        (self._commands / "systemctl").write_text(SYSTEMCTL)
        (self._commands / "systemctl").chmod(0o755)

    def run(self, state: str = "unchanged", check: bool = False, **options: Any) -> dict[str, Any]:
        found = run_module(
            "service_drain",
            check=check,
            path=str(self._commands),
            state=state,
            directory=str(self.files),
            **options,
        )
        assert not found.get("failed"), found
        return found


class Service:
    """What the service answers."""

    running, waiting, status = 0, 0, 200


@pytest.fixture
def service() -> Service:
    return Service()


@contextmanager
def serving(tmp_path: Path, service: Service, tls: ssl.SSLContext | None = None) -> Iterator[Node]:
    """Have the service answer, by that certificate if there is one."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            labels = '{model_name="m",engine="0"}'
            self.send_response(service.status if self.path == "/ready" else 200)
            self.end_headers()
            self.wfile.write(f"vllm:num_requests_running{labels} {service.running}\n".encode())
            self.wfile.write(f"vllm:num_requests_waiting{labels} {service.waiting}.0\n".encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield Node(tmp_path, f"{'https' if tls else 'http'}://127.0.0.1:{server.server_address[1]}")
        server.shutdown()


@pytest.fixture
def node(tmp_path: Path, service: Service) -> Iterator[Node]:
    with serving(tmp_path, service) as one:
        yield one


def test_all_instances_are_drained_with_a_reason_and_come_back(node: Node) -> None:
    assert node.run()["serving"] == ["0", "1"]
    found = node.run("drained", reason="the driver", owner="alice")
    assert found["changed"] and found["serving"] == [] and set(found["drained"]) == {"0", "1"}
    said = json.loads((node.files / "drain-1").read_text())
    assert (said["reason"], said["owner"], said["failed"]) == ("the driver", "alice", False)
    assert not node.run("drained", reason="the driver", owner="alice")["changed"]
    assert node.run()["drained"]["0"] == said
    back = node.run("serving")
    assert back["changed"] and back["serving"] == ["0", "1"] and not list(node.files.iterdir())


def test_a_failure_keeps_the_time_since_when_it_is_drained(node: Node) -> None:
    (node.files / "drain-0").write_text(
        json.dumps({"reason": "a", "owner": "b", "since": "2026-01-02T03:04:05Z", "failed": False})
    )
    found = node.run("drained", reason="no answer", failed=True)["drained"]["0"]
    assert (found["since"], found["reason"], found["failed"]) == ("2026-01-02T03:04:05Z", "no answer", True)


def test_a_file_of_somebodys_own_drains_too(node: Node) -> None:
    (node.files / "drain-0").write_text("fan is\nbroken")
    (node.files / "drain-1").touch()
    found = node.run()
    assert found["serving"] == []
    assert [said["reason"] for said in found["drained"].values()] == ["fan is broken", "drained by hand"]


def test_check_mode_writes_nothing(node: Node) -> None:
    assert node.run("drained", check=True, reason="x")["changed"]
    assert not list(node.files.iterdir())


def test_what_a_service_has_to_do_is_told(node: Node, service: Service) -> None:
    assert node.run(instances=["0"], urls=[node.url])["busy"] == []
    service.running, service.waiting = 2, 1
    assert node.run(instances=["0"], urls=[node.url])["busy"] == ["instance 0: 2 requests run, 1 wait"]


def test_a_service_that_is_not_ready_does_not_serve(node: Node, service: Service) -> None:
    service.status = 503
    assert node.run(instances=["0"], urls=[node.url])["serving"] == []


def test_a_service_that_does_not_answer_keeps_nobody_waiting(node: Node) -> None:
    found = node.run(instances=["0"], urls=["http://127.0.0.1:9"])
    assert (found["serving"], found["busy"]) == ([], [])


def test_a_service_is_asked_by_its_certificate_alone(tmp_path: Path, service: Service) -> None:
    (tmp_path / "other").mkdir()
    own, other = make(tmp_path, "node.example.com"), make(tmp_path / "other", "node.example.com")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*own)
    with serving(tmp_path, service, tls) as node:
        asked = node.run(instances=["0"], urls=[node.url], certificate=str(own.certificate))
        assert asked["serving"] == ["0"]
        for certificate in ("", str(other.certificate), "/nonexistent"):
            assert node.run(instances=["0"], urls=[node.url], certificate=certificate)["serving"] == []
