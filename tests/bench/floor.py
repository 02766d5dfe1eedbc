"""CPU that a streamed token costs a program that does nothing else (floor.py TOKENIZER, in an engine's environment).

A process sends a step's tokens every 20 ms, as the engine's does; this one decodes them, and writes an event to each
client. With one thread or two, as the service has: what it costs above this is its own.
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
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from tokenizers import Tokenizer

STEP_SECONDS, STEPS, ROUNDS, CLIENTS = 0.02, 200, 3, (1, 8, 32)
CONTEXT = 6  # tokens that are decoded with the new one


class Streams:
    """Events to clients."""

    def __init__(self, tokenizer: Any, clients: Sequence[socket.socket]) -> None:
        self._tokenizer = tokenizer
        self._clients = clients
        self._ids: list[list[int]] = [[] for _ in clients]

    def decoded(self, data: bytes) -> list[tuple[int, str]]:
        """The text of a step's tokens, by client."""
        found = []
        for client, token in json.loads(data):
            self._ids[client] = [*self._ids[client][-CONTEXT:], token]
            found.append((client, self._tokenizer.decode(self._ids[client])[-5:]))
        return found

    def send(self, texts: list[tuple[int, str]]) -> None:
        """Send them."""
        for client, text in texts:
            choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": None}
            data = json.dumps({"id": "cmpl-1", "object": "text_completion", "choices": [choice]}).encode()
            self._clients[client].send(b"data: %b\n\n" % data)


async def one_thread(steps: socket.socket, streams: Streams) -> None:
    """Receive, decode and send on the loop."""
    loop = asyncio.get_running_loop()
    steps.setblocking(False)
    while data := await loop.sock_recv(steps, 65536):
        streams.send(streams.decoded(data))


async def two_threads(steps: socket.socket, streams: Streams) -> None:
    """Receive and decode on a thread, and send on the loop."""
    loop = asyncio.get_running_loop()

    def receive() -> None:
        while data := steps.recv(65536):
            loop.call_soon_threadsafe(streams.send, streams.decoded(data))

    with ThreadPoolExecutor(1) as pool:
        await loop.run_in_executor(pool, receive)


def engine(steps: socket.socket, clients: int) -> None:
    """Send the steps."""
    for number in range(STEPS):
        time.sleep(STEP_SECONDS)
        data = json.dumps([[client, 300 + number] for client in range(clients)]).encode()
        steps.sendall(data)


def reader(ends: Sequence[socket.socket]) -> None:
    """Read what the clients get, until that ends."""
    with selectors.DefaultSelector() as waiting:
        for end in ends:
            waiting.register(end, selectors.EVENT_READ)
        while all(key.fileobj.recv(65536) for key, _event in waiting.select()):  # type: ignore[union-attr]
            pass


def measured(way: Callable[[socket.socket, Streams], Coroutine[Any, Any, None]], tokenizer: Any, clients: int) -> float:
    """Microseconds of CPU a token."""
    here, there = socket.socketpair(type=socket.SOCK_SEQPACKET)  # a step is received whole, and alone
    pairs = [socket.socketpair() for _ in range(clients)]
    children: list[int] = []
    for work in (partial(engine, there, clients), partial(reader, [end for _own, end in pairs])):
        child = os.fork()
        if not child:
            here.close()
            for own, _end in pairs:
                own.close()
            if children:
                there.close()
            work()
            os._exit(0)
        children.append(child)
    there.close()
    streams = Streams(tokenizer, [own for own, _end in pairs])
    began = time.process_time()
    asyncio.run(way(here, streams))
    spent = time.process_time() - began
    for one in (here, *(end for pair in pairs for end in pair)):
        one.close()
    for child in children:
        os.waitpid(child, 0)
    return spent / STEPS / clients * 1e6


def main() -> None:
    """Print the medians."""
    tokenizer = Tokenizer.from_file(sys.argv[1])
    tokenizer.decode([300])
    for clients in CLIENTS:
        for way in (one_thread, two_threads):
            found = statistics.median(measured(way, tokenizer, clients) for _ in range(ROUNDS))
            print(f"{clients} clients, {way.__name__.replace('_', ' ')}: {found:.0f} us a token", flush=True)


if __name__ == "__main__":
    main()
