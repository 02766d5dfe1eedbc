"""Connections: their number, their time limits, and refusals by origin."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, Optional

import pytest
import uvicorn
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import LIMITS, MODEL, FakeBackend, wait_for
from fastapi.testclient import TestClient
from xpuserve.api import origin
from xpuserve.api.app import create_app
from xpuserve.api.replies import Asked, ChatReply, Reply
from xpuserve.api.sse import event
from xpuserve.door import Door, most_connections, protocol
from xpuserve.engine.loop import Engine

CHAT = "/v1/chat/completions"
BODY = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": "Where?"}]}).encode()


class Serve:
    """Serves with a door of the test's own."""

    def __init__(self, engine: Engine, stack: ExitStack) -> None:
        self._engine = engine
        self._stack = stack

    def __call__(self, connections: int, of_one: int = 0, **seconds: float) -> int:
        """The port."""
        app = create_app(self._engine, MODEL, LIMITS)
        self.door = Door(connections, of_one, **seconds)
        options: Any = {"http": protocol(self.door), "port": 0, "log_level": "error", "lifespan": "off"}
        server = uvicorn.Server(uvicorn.Config(app, **options))
        thread = threading.Thread(target=server.run)
        thread.start()
        self._stack.callback(thread.join, 5)
        self._stack.callback(setattr, server, "should_exit", True)
        wait_for(lambda: server.started)
        return int(server.servers[0].sockets[0].getsockname()[1])


@pytest.fixture
def serve(engine: Engine) -> Iterator[Serve]:
    with ExitStack() as stack:
        yield Serve(engine, stack)


def head(length: int, path: str = CHAT, kind: str = "application/json") -> bytes:
    """The head of a request."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Type: {kind}", f"Content-Length: {length}", "", ""]
    return "\r\n".join(lines).encode()


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=60)


def ask(connection: Optional[socket.socket], port: int = 0, body: bytes = BODY) -> tuple[int, bytes]:
    """Ask on a connection, or a new one."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    client.sock = connection or connected(port)
    client.request("POST", CHAT, body, {"Content-Type": "application/json"})
    response = client.getresponse()
    return response.status, response.read()


def test_idle_connections_keep_nobody_out(serve: Serve) -> None:
    port = serve(4)
    idle = [connected(port) for _ in range(20)]
    for connection in idle[:3]:
        wait_for(lambda connection=connection: connection.recv(1) == b"")  # type: ignore[misc]
    assert ask(idle[-1])[0] == 200  # the last that came is there
    assert ask(None, port)[0] == 200


def test_of_one_address_only_so_many_are_there(serve: Serve, backend: FakeBackend) -> None:
    port = serve(100, 2)
    busy = [connected(port) for _ in range(2)]
    for connection in busy:
        wait = BODY.replace(b"Where?", b"WAIT")
        head = (
            f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(wait)}\r\n\r\n"
        )
        connection.sendall(head.encode() + wait)
    assert backend.answering.wait(60)
    with connected(port) as third:
        client = http.client.HTTPResponse(third)
        client.begin()
        assert (client.status, client.headers["retry-after"]) == (503, "5")
        assert json.loads(client.read())["error"]["code"] == "too_many_connections"
    other = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=("127.0.0.2", 0))
    other.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert other.recv(12) == b"HTTP/1.1 200"
    backend.may_answer.set()
    for connection in busy:
        assert connection.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nX: "])
def test_a_head_that_does_not_come_is_not_waited_for(serve: Serve, sent: bytes) -> None:
    with connected(serve(9, head_seconds=0.2)) as slow:
        slow.sendall(sent)
        assert slow.recv(1) == b""


def test_the_next_request_on_a_connection_has_the_same_time(serve: Serve) -> None:
    connection = connected(serve(9, head_seconds=0.5))
    assert ask(connection)[0] == 200
    connection.sendall(b"GET / HT")
    assert connection.recv(1) == b""


def test_a_body_that_does_not_come_is_not_waited_for(serve: Serve, backend: FakeBackend) -> None:
    with connected(serve(9, body_seconds=0.2)) as slow:
        slow.sendall(head(99) + b"{")
        assert slow.recv(1) == b""
    assert backend.seen == []


def test_an_answer_may_take_longer_than_a_body(serve: Serve, backend: FakeBackend) -> None:
    with connected(serve(9, head_seconds=0.1, body_seconds=0.1, read_seconds=0.1)) as connection:
        threading.Timer(0.6, backend.may_answer.set).start()
        assert ask(connection, body=BODY.replace(b"Where?", b"WAIT"))[0] == 200


def test_a_refused_body_is_read_no_further_and_the_refusal_arrives(serve: Serve) -> None:
    with connected(serve(9)) as connection:
        head = (
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
        )
        connection.sendall(head % 10**9)
        assert connection.recv(12) == b"HTTP/1.1 400"
        with pytest.raises(OSError, match=r"reset|Broken pipe|timed out"):  # unread data fills the buffers
            while True:
                connection.sendall(bytes(10**6))


def test_a_client_that_does_not_read_is_dropped(serve: Serve, engine: Engine, backend: FakeBackend) -> None:
    port = serve(9, read_seconds=0.2)
    backend.answer = "x" * 60
    engine._decode = lambda ids: "y" * 500000 * len(ids)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deaf.connect(("127.0.0.1", port))
        body = json.dumps({"model": MODEL, "prompt": "Where?", "stream": True, "max_tokens": 50}).encode()
        deaf.sendall(head(len(body), "/v1/completions") + body)
        wait_for(lambda: bool(backend.seen))
        wait_for(lambda: serve.door.connections == 0)
        wait_for(lambda: engine.running == 0)
        deaf.settimeout(60)
        sent = b"".join(iter(lambda: deaf.recv(65536), b""))
        assert b"200 OK" in sent
        assert b"[DONE]" not in sent


def test_there_are_fewer_connections_than_files(monkeypatch: pytest.MonkeyPatch) -> None:
    raised: list[Any] = []
    monkeypatch.setattr("resource.getrlimit", lambda which: (256, 1024))
    monkeypatch.setattr("resource.setrlimit", lambda which, limits: raised.append(limits))
    assert most_connections(4096) == 1024 - 384
    assert raised == [(1024, 1024)]
    assert most_connections(100) == 100


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *(
            ("localhost", 200),
            ("127.0.0.1:8000", 200),
            ("[::1]:8000", 200),
            ("LocalHost.:1", 200),
            ("proxy.example", 200),
        ),
        *(("evil.example", 421), ("evil.example:8000", 421), ("127.0.0.1.evil.example", 421), ("", 421)),
    ],
)
def test_on_a_loopback_address_only_its_own_names_are_answered(engine: Engine, host: str, status: int) -> None:
    client = TestClient(create_app(engine, MODEL, LIMITS, hosts=origin.hosts("127.0.0.1", ["Proxy.example"])))
    for path in ("/health", "/", "/v1/models"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == status
        if status != 200:
            assert response.json()["error"]["code"] == "unknown_host"


def test_on_other_addresses_every_name_is_answered() -> None:
    assert origin.hosts("0.0.0.0") is None  # noqa: S104
    assert origin.hosts("192.0.2.1") is None
    assert origin.hosts("::1") is not None


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
def test_what_a_page_of_any_site_may_send_is_not_read(
    client: TestClient, backend: FakeBackend, kind: Optional[str]
) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    response = client.post(CHAT, content=BODY, headers=headers)
    assert response.status_code == 400
    assert "application/json" in response.json()["error"]["message"]
    assert backend.seen == []
    assert (
        client.post(CHAT, content=BODY, headers={"Content-Type": "application/json; charset=utf-8"}).status_code == 200
    )


def stream(port: int, version: str, method: str = "POST") -> bytes:
    """All that comes of a request for a stream."""
    body = json.dumps({**json.loads(BODY), "stream": True}).encode()
    with connected(port) as connection:
        sent = (
            head(len(body))
            .replace(b"HTTP/1.1", version.encode())
            .replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        )
        connection.sendall(sent.replace(b"POST", method.encode(), 1) + body)
        return b"".join(iter(lambda: connection.recv(65536), b""))


def test_a_stream_is_chunked_for_those_who_know_that(serve: Serve) -> None:
    port = serve(9)
    begin, _, body = stream(port, "HTTP/1.1").partition(b"\r\n\r\n")
    assert b"transfer-encoding: chunked" in begin.lower()
    text = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        text, end, body = text + body[: int(size, 16)], body[int(size, 16) :][:2], body[int(size, 16) + 2 :]
        assert end == b"\r\n"
    assert int(size, 16) == 0
    begin, _, plain = stream(port, "HTTP/1.0").partition(b"\r\n\r\n")
    assert b"transfer-encoding" not in begin.lower()

    def said(events: bytes) -> list[str]:
        *chunks, done = events.decode().strip().split("\n\n")
        assert done == "data: [DONE]"
        found = [json.loads(chunk.removeprefix("data: "))["choices"][0]["delta"].get("content", "") for chunk in chunks]
        return ["".join(found)]

    assert said(text) == said(plain) != [""]


@pytest.mark.parametrize("kind", [Reply, ChatReply])
def test_a_piece_of_text_is_the_chunk_that_it_would_be_as_an_object(kind: type[Reply]) -> None:
    reply = kind(Asked("1", 2, "a model", include_usage=kind is ChatReply))
    for n, text in enumerate(["", "x", '"\\\n\x00\x7f', "Größe 😀", "\u2028</script>"] * 2):
        chunk = reply._chunk(reply._choice(n % 2, reply._some(text), None))
        assert list(reply.more(n % 2, text, ())) == [event(chunk)]
