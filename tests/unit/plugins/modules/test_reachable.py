"""Sources of downloads are checked before any change; all that do not answer are named together."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

WHAT: dict[str, Any] = {"purpose": "the wheels", "advice": "set python_runtime_index_url"}


class Mirror(BaseHTTPRequestHandler):
    """Has /there, and answers no HEAD for it."""

    def do_HEAD(self) -> None:
        self.send_error(405)

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/there" else 404)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def mirror() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Mirror) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_what_answers_passes_and_nothing_changes(mirror: str, tmp_path: Path) -> None:
    sources = [f"{mirror}/there", str(tmp_path), f"file://{tmp_path}/file"]
    (tmp_path / "file").touch()
    answer = run_module("reachable", check=True, sources=sources, **WHAT)
    assert not answer["changed"] and answer["sources"] == sources


def test_all_that_do_not_answer_are_named_without_their_passwords(mirror: str, tmp_path: Path) -> None:
    gone = [f"{mirror}/gone", str(tmp_path / "gone"), "http://user:pa55word@127.0.0.1:9/"]
    refused = run_module("reachable", sources=[f"{mirror}/there", *gone], **WHAT)
    assert refused["failed"] and "for the wheels" in refused["msg"] and "set python_runtime_index_url" in refused["msg"]
    for said in (f"{mirror}/gone: HTTP 404", f"{tmp_path}/gone: the path does not exist", "http://***@127.0.0.1:9/: "):
        assert said in refused["msg"]
    assert "/there" not in refused["msg"] and "pa55word" not in refused["msg"]
