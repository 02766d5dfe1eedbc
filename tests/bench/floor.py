"""CPU that a streamed token costs a program that does nothing else.

``floor.py CONFIG OUTPUT WORK`` in the engine's environment, as cost.py. A process sends a step's tokens as often as the
engine's there; this one looks up their texts, and writes an event to each client. What the service costs above that
is its own: checks, shares, deadlines, counts, and text that is whole.
"""

from __future__ import annotations

import asyncio
import json
import os
import selectors
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from xpuserve import backends, cli, settings

STEPS, ROUNDS = 300, 3
BEFORE = b'data: {"id":"cmpl-1","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":'
BEHIND = b',"logprobs":null,"finish_reason":null}]}\n\n'


class Streams:
    """Events to clients."""

    def __init__(self, pieces: Sequence[str], clients: Sequence[socket.socket]) -> None:
        self._pieces = pieces
        self._clients = clients

    def send(self, data: bytes) -> None:
        """Send a step's tokens."""
        for client, token in json.loads(data):
            event = b"%b%b%b" % (BEFORE, json.dumps(self._pieces[token]).encode(), BEHIND)
            self._clients[client].send(b"%x\r\n%b\r\n" % (len(event), event))


async def receive(steps: socket.socket, take: Callable[[bytes], None]) -> None:
    """Pass on what comes, until that ends."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()

    def readable() -> None:
        data = steps.recv(65536)
        if data:
            take(data)
        else:
            loop.remove_reader(steps.fileno())
            over.set_result(None)

    loop.add_reader(steps.fileno(), readable)
    await over


def engine(steps: socket.socket, clients: int, step_seconds: float) -> None:
    """Send the steps."""
    for number in range(STEPS):
        time.sleep(step_seconds)
        steps.sendall(json.dumps([[client, 300 + number] for client in range(clients)]).encode())


def reader(ends: Sequence[socket.socket]) -> None:
    """Read what the clients get, until that ends."""
    with selectors.DefaultSelector() as waiting:
        for end in ends:
            waiting.register(end, selectors.EVENT_READ)
        while all(key.fileobj.recv(65536) for key, _event in waiting.select()):  # type: ignore[union-attr]
            pass


def measured(pieces: Sequence[str], clients: int, step_seconds: float) -> float:
    """Microseconds of CPU a token."""
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)  # a step is received whole, and alone
    with socket.create_server(("127.0.0.1", 0)) as server:
        ends = [socket.create_connection(server.getsockname()) for _client in range(clients)]
        own = [server.accept()[0] for _client in range(clients)]
    children: list[int] = []
    for work in (partial(engine, there, clients, step_seconds), partial(reader, ends)):
        child = os.fork()
        if not child:
            for one in (here, *own, *([there] if children else [])):
                one.close()
            work()
            os._exit(0)
        children.append(child)
    there.close()
    began = time.process_time()
    asyncio.run(receive(here, Streams(pieces, own).send))
    spent = time.process_time() - began
    for one in (here, *own, *ends):
        one.close()
    for child in children:
        os.waitpid(child, 0)
    return spent / STEPS / clients * 1e6


def main() -> None:
    """Measure, and write the medians."""
    config = settings.load(Path(sys.argv[1]))
    cli._prepare(config)
    tokenizer = backends._load_tokenizer(config, 0)
    pieces = [tokenizer.decode([token]) for token in range(300 + STEPS)]
    runs, work = [], json.loads(sys.argv[3])
    for clients, _tokens in work["runs"]:
        found = statistics.median(measured(pieces, clients, work["step_seconds"]) for _round in range(ROUNDS))
        runs.append({"clients": clients, "us_per_token": round(found, 1)})
    Path(sys.argv[2]).write_text(json.dumps({"runs": runs}), encoding="utf-8")


if __name__ == "__main__":
    main()
