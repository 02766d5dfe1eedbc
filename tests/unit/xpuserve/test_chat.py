from __future__ import annotations

import builtins
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from xpuserve import cli

SERVICE = Path(__file__).parents[3] / "roles/inference/files/xpuserve"


class Server(ThreadingHTTPServer):
    """Speaks just enough of the API, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._send(200, {"data": [{"id": "fake"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        question = body["messages"][-1]["content"]
        if question == "refuse":
            self._send(400, {"error": {"message": "too long"}})
            return
        if question == "shorten" and len(body["messages"]) > 4:
            self._send(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
            return
        self.send_response(200)
        self.end_headers()
        for piece in ("Pa", "ris ", "é"):
            self._event({"choices": [{"index": 0, "delta": {"content": piece}}]})
        if question == "hang":
            self.rfile.read(1)  # until the client leaves
        elif question == "fail":
            self._event({"error": {"message": "out of memory"}})
        elif question == "odd":
            self._event({"choices": [{"text": "x"}]})
        elif question == "text":
            self.wfile.write(b"data: x\n\n")
        elif question != "cut":
            self.wfile.write(b"data: [DONE]\n\n")

    def _send(self, status: int, body: dict[str, Any]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def _event(self, data: dict[str, Any]) -> None:
        self.wfile.write(b"data: " + json.dumps(data).encode() + b"\n\n")


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let a person type lines and then press Ctrl-D."""
    waiting = iter(lines)

    def answer(prompt: str) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", answer)


def test_once(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chat", "--url", server.url, "--system", "Be brief.", "--once", "Where?"]) == 0
    assert capsys.readouterr().out == "Paris é\n"
    assert server.asked[0]["model"] == "fake"
    assert server.asked[0]["stream"] is True
    assert [message["role"] for message in server.asked[0]["messages"]] == ["system", "user"]


@pytest.mark.parametrize(
    ("question", "message"), [("refuse", "400: too long"), ("fail", "out of memory"), ("cut", "before it was complete")]
)
def test_once_says_what_went_wrong(
    server: Server, capsys: pytest.CaptureFixture[str], question: str, message: str
) -> None:
    assert cli.main(["chat", "--url", server.url, "--once", question]) == 1
    assert message in capsys.readouterr().err


def test_the_model_sees_the_whole_conversation(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "Where?", "", "refuse", "And then?", "exit", "never asked")
    assert cli.main(["chat", "--url", server.url, "--model", "m"]) == 0
    contents = [[message["content"] for message in body["messages"]] for body in server.asked]
    # A question that was refused is forgotten.
    assert contents == [["Where?"], ["Where?", "Paris é", "refuse"], ["Where?", "Paris é", "And then?"]]
    assert "too long" in capsys.readouterr().out


def test_a_conversation_longer_than_the_context_loses_its_beginning(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "1", "2", "shorten", "4")
    assert cli.main(["chat", "--url", server.url, "--system", "S"]) == 0
    assert [message["content"] for message in server.asked[-1]["messages"]] == (
        ["S", "2", "Paris é", "shorten", "Paris é", "4"]
    )
    assert "too long" not in capsys.readouterr().out


def test_what_a_terminal_cannot_show_is_replaced(server: Server) -> None:
    code = f"import sys; sys.path.insert(0, {str(SERVICE)!r}); from xpuserve.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "chat", "--url", server.url, "--once", "Where?"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    assert subprocess.check_output(command, env=environment) == b"Paris ?\n"


@pytest.mark.parametrize("question", ["odd", "text"])
def test_a_server_of_another_kind(server: Server, capsys: pytest.CaptureFixture[str], question: str) -> None:
    assert cli.main(["chat", "--url", server.url, "--once", question]) == 1
    assert "does not speak OpenAI's API" in capsys.readouterr().err


def test_ctrl_c_with_no_answer_to_stop_does_not_leave(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = iter([KeyboardInterrupt(), EOFError()])

    def press(prompt: str) -> str:
        raise next(keys)

    monkeypatch.setattr(builtins, "input", press)
    assert cli.main(["chat", "--url", server.url]) == 0
    assert next(keys, None) is None


def test_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert cli.main(["chat", "--url", url, "--once", "x"]) == 1
    assert f"nothing answers at {url}" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:port"])
def test_not_an_address(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert cli.main(["chat", "--url", url, "--once", "x"]) == 1
    assert "is not a server's address" in capsys.readouterr().err


def test_ctrl_c_stops_the_answer_and_ctrl_d_leaves(server: Server) -> None:
    """In a process of its own, with no package but Python's: -I -S hides the others."""
    # A shell that starts a command in the background has it ignore Ctrl-C, and so its children.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"sys.path.insert(0, {str(SERVICE)!r}); from xpuserve.cli import main; sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-u", "-c", code, "chat", "--url", server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(b"hang\n")
        process.stdin.flush()
        seen = b""
        while not seen.endswith("é".encode()):
            seen += process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        process.stdin.write(b"Where?\n")
        process.stdin.close()
        rest = process.stdout.read().decode()
    assert process.returncode == 0
    assert "(stopped)" in rest
    assert rest.count("Paris é") == 1
    assert [m["content"] for m in server.asked[1]["messages"]] == ["hang", "Paris é", "Where?"]
