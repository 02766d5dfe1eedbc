"""CPU cost of a streamed token in the service's process; the engine's process is a stand-in that computes nothing.

``cost.py CONFIG OUTPUT WORK`` in the engine's environment; CONFIG is the service's configuration, WORK and
OUTPUT are JSON. The tokenizer is the model's own; tokens are those of ordinary text, paced as from an engine, a step
every WORK's ``step_seconds``.
"""

from __future__ import annotations

import http.client
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Any

from xpuserve import backends, cli, server, settings
from xpuserve.engine import worker
from xpuserve.engine.backend import Backend
from xpuserve.engine.channel import Channel
from xpuserve.engine.request import Request, Token
from xpuserve.engine.runner import Output, Runner

TEXT = "The capital of France is Paris, which lies on the Seine, and has been its largest town for long. "
# The end of a stream, in chunks.
DONE = b"data: [DONE]\n\n\r\n0\r\n\r\n"
ROWS = 64


class Pacing(Runner):
    """Gives every request the next token of a text, and waits a step's time for that."""

    rows = ROWS

    def __init__(self, tokens: list[int], step_seconds: float) -> None:
        self._tokens = tokens
        self._step_seconds = step_seconds
        self._at: dict[Request, int] = {}

    def fits(self, request: Request) -> bool:
        """See Runner."""
        return len(self._at) < ROWS

    def add(self, request: Request) -> None:
        """See Runner."""
        self._at[request] = 0

    def drop(self, request: Request) -> None:
        """See Runner."""
        self._at.pop(request, None)

    def step(self) -> Iterator[Output]:
        """See Runner."""
        if self._at:
            time.sleep(self._step_seconds)
        for request in list(self._at):
            at = self._at[request]
            self._at[request] = at + 1
            yield Output(request, (Token(self._tokens[at % len(self._tokens)]),))


class PacingBackend(Backend):
    """A backend without a model."""

    def __init__(self, config: Any, instance: int, step_seconds: float) -> None:
        self._step_seconds = step_seconds
        self._tokens = backends._load_tokenizer(config, instance).encode(TEXT, special=False)

    def load(self) -> None:
        """See Backend."""

    def runner(self) -> Runner:
        """See Backend."""
        return Pacing(self._tokens, self._step_seconds)


def cpu_seconds(pid: int) -> float:
    """CPU time of a process, to the nanosecond: /proc has hundredths of a second."""
    return time.clock_gettime(~pid << 3 | 2)  # CPUCLOCK_SCHED of that process: clock_getcpuclockid(3)


def stream(port: int, model: str, clients: int, tokens: int) -> None:
    """Send so many requests, and read the answers to their ends, all in one thread: a thread for each would be woken by
    the service for every token, as no client elsewhere is.
    """
    body = {"model": model, "prompt": "x", "max_tokens": tokens, "stream": True, "ignore_eos": True, "temperature": 0}
    data = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    with selectors.DefaultSelector() as waiting:
        for _client in range(clients):
            connection = socket.create_connection(("127.0.0.1", port))
            connection.sendall(head.encode() + data)
            waiting.register(connection, selectors.EVENT_READ, bytearray())
        while waiting.get_map():
            for key, _event in waiting.select():
                assert isinstance(key.fileobj, socket.socket)
                read = key.fileobj.recv(65536)
                key.data[:] = (key.data + read)[-len(DONE) :]
                if not read:
                    assert key.data == DONE, key.data
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()


def main() -> int:
    """Measure and write the result; acts as the engine's process or the service's if the first argument says so."""
    if sys.argv[1] == "engine":
        backend = partial(PacingBackend, step_seconds=float(sys.argv[2]))
        return worker.run(Channel(socket.socket(fileno=int(sys.argv[3]))), backend)
    config = settings.load(Path(sys.argv[2 if sys.argv[1] == "serve" else 1]))
    cli._prepare(config)
    if sys.argv[1] == "serve":
        listener = socket.create_server(("127.0.0.1", 0))
        print(listener.getsockname()[1], flush=True)
        return server.run(config, 0, listener, [sys.executable, __file__, "engine", sys.argv[3]])
    output, work = Path(sys.argv[2]), json.loads(sys.argv[3])
    serve = [sys.executable, __file__, "serve", sys.argv[1], str(work["step_seconds"])]
    with Popen(serve, stdout=-1) as process:
        assert process.stdout
        port = int(process.stdout.readline())
        try:
            runs = [measured(process.pid, port, config, *run) for run in work["runs"]]
            output.write_text(json.dumps({"runs": runs}), encoding="utf-8")
        finally:
            process.kill()
    return 0


def measured(pid: int, port: int, config: Any, clients: int, tokens: int) -> dict[str, Any]:
    """CPU of the service for each token with so many concurrent streams."""
    while ready(port) != 200:
        time.sleep(0.1)
    for warm in (True, False):
        before = cpu_seconds(pid)
        stream(port, config.model.name, clients, 16 if warm else tokens)
    return {"clients": clients, "us_per_token": round((cpu_seconds(pid) - before) / clients / tokens * 1e6, 1)}


def ready(port: int) -> int:
    """The status of /ready."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET", "/ready")
    return connection.getresponse().status


if __name__ == "__main__":
    sys.exit(main())
