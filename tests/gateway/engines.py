"""Instances that answer as a test says: what stands behind the door in these tests."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, Optional


class Engine:
    """One instance. ``act`` is what it does with a request; ``may_go_on`` holds it in the middle of an answer."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.act = "answer"
        self.ready = True
        self.agent = "up 100%"
        self.may_go_on = threading.Event()
        self.may_go_on.set()
        self.lock = threading.Condition()
        self.asked: list[dict[str, Any]] = []
        self.running = 0
        self.most_running = 0
        self.leave: Callable[[], None] = lambda: None  # nothing listens at its port then

    def wait_for(self, number: int) -> None:
        """Wait until it has been asked that often."""
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.asked) >= number, timeout=30)

    def begin(self, asked: dict[str, Any]) -> None:
        """Note a request."""
        with self.lock:
            self.asked.append(asked)
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            self.lock.notify_all()

    def end(self) -> None:
        """Note that a request is over."""
        with self.lock:
            self.running -= 1
            self.lock.notify_all()


class _Server(socketserver.ThreadingTCPServer):
    """A client that leaves is no error here."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 512

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: HAProxy leaves checks that take too long."""


def _handler(engine: Engine) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def reply(self, status: int, body: bytes) -> bytes:
            """Send all of a reply but its body; gives that."""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            return body

        def do_GET(self) -> None:
            if engine.act == "hang":
                engine.may_go_on.wait(600)
            self.wfile.write(self.reply(200 if engine.ready else 503, json.dumps({"by": engine.name}).encode()))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            engine.begin({"path": self.path, "headers": dict(self.headers), "body": body})
            try:
                last = self.answer(body)
            finally:
                engine.end()  # before the last bytes: who has them may send the next request at once
            if last:
                self.wfile.write(last)

        def answer(self, body: dict[str, Any]) -> bytes:
            """Send all of an answer but its last bytes; gives those."""
            if engine.act in ("close", "reset", "nonsense"):
                self.close_connection = True
                if engine.act == "reset":
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.connection.close()
                return b"?\n" if engine.act == "nonsense" else b""
            if engine.act == "refuse":
                return self.reply(503, b"{}")
            if not body.get("stream"):
                engine.may_go_on.wait(600)
                return self.reply(200, json.dumps({"by": engine.name}).encode())
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.chunk(f"data: {engine.name}\n\n")
            engine.may_go_on.wait(600)
            if engine.act == "break":
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return b""
            self.chunk("data: [DONE]\n\n")
            return b"0\r\n\r\n"

        def chunk(self, text: str) -> None:
            self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())
            self.wfile.flush()

    return Handler


def _agent(engine: Engine) -> type[socketserver.BaseRequestHandler]:
    class Agent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(f"{engine.agent}\n".encode())

    return Agent


@contextmanager
def serving(engine: Engine, tls: Optional[ssl.SSLContext] = None) -> Iterator[tuple[int, int]]:
    """Run an engine, over TLS where there is a context for it; gives its port and its agent's."""
    with _Server(("127.0.0.1", 0), _handler(engine)) as http, _Server(("127.0.0.1", 0), _agent(engine)) as agent:
        if tls:
            http.socket = tls.wrap_socket(http.socket, server_side=True)
        for server in (http, agent):
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        engine.leave = http.server_close
        try:
            yield http.server_address[1], agent.server_address[1]
        finally:
            engine.may_go_on.set()
            for server in (http, agent):
                server.shutdown()
