"""The engine's process under load, killed and stopped; and a service whose connections thousands hold."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.load.client import LoadClient, Reply
from tests.load.service import Service, wait_for
from tests.load.test_load import ENDLESS, some_text

#: How often an engine is ended, under so many streams.
TIMES, STREAMS = 20, 16
IDLE, SLOW, DEAF, GOOD = 10_000, 3_000, 300, 8
#: Files that the service may open where they run out: most of those who come find none left.
FILES = 1024
#: Memory that all of them may take together.
MEMORY = 2**28


class Listening:
    """Asks for the health of a service all the time."""

    def __init__(self, client: LoadClient) -> None:
        self._client = client
        self._over = threading.Event()
        self.statuses: list[int] = []
        self._thread = threading.Thread(target=self._ask)
        self._thread.start()

    def _ask(self) -> None:
        while not self._over.wait(0.05):
            self.statuses.append(self._client.status("/health"))

    def end(self) -> None:
        self._over.set()
        self._thread.join()


def streams(client: LoadClient, pool: ThreadPoolExecutor, tokens: int) -> list[Reply]:
    """So many streams whose first tokens have come."""
    replies = [Reply() for _ in range(STREAMS)]

    def read(reply: Reply, number: int) -> None:
        try:
            for _ in client.stream(reply, some_text(random.Random(number)), tokens, ignore_eos=True):  # noqa: S311
                pass
        except OSError as error:
            reply.broken = repr(error)

    for number, reply in enumerate(replies):
        pool.submit(read, reply, number)
    wait_for(lambda: all(reply.events for reply in replies))
    return replies


@pytest.mark.parametrize("engine", ["openvino", "bigdl"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_an_engine_that_ends_or_hangs_ends_no_listener(tmp_path: Path, engine: str, number: signal.Signals) -> None:
    # A step of a busy machine takes a second; the least time after which an engine is taken to hang is ten of them.
    service = Service(tmp_path, engine, batch_requests=STREAMS, stall_timeout=10)
    with ThreadPoolExecutor(STREAMS) as pool, service.running() as client:
        listening = Listening(client)
        try:
            for _ in range(TIMES):
                replies = streams(client, pool, ENDLESS)
                before = service.engine
                os.kill(before, number)
                wait_for(lambda replies=replies: all("error" in reply.events[-2:][0] for reply in replies))  # type: ignore[misc]
                assert {reply.events[-2]["error"]["code"] for reply in replies} == {"engine_restarting"}
                assert not any(reply.broken for reply in replies)
                wait_for(lambda: client.status("/ready") == 200)
                assert service.engine != before
        finally:
            listening.end()
        assert set(listening.statuses) == {200, 503}
        assert client.ask("river", 8).complete(8)


def test_those_who_only_hold_connections_keep_nobody_out(tmp_path: Path) -> None:
    """Idle ones, slow ones and those that never read, more than there are files, and good ones among them."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(65536, resource.getrlimit(resource.RLIMIT_NOFILE)[1]),) * 2)
    service = Service(tmp_path, queue_requests=400)
    with ExitStack() as stack, ThreadPoolExecutor(GOOD) as pool, service.running(files=FILES) as client:
        body = client.body("river", 64, ignore_eos=True)
        head = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        sent = [b""] * IDLE + [head] * SLOW + [head + b"Content-Length: %d\r\n\r\n" % len(body) + body] * DEAF
        random.Random(5).shuffle(sent)  # noqa: S311
        replies: list[Future[Reply]] = []
        memory = service.memory
        for number, data in enumerate(sent):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", client.port)))
            if data:
                connection.sendall(data)
            if number % (len(sent) // GOOD) == 0 and len(replies) < GOOD:
                replies.append(pool.submit(client.ask, "stone", 64))
        assert [reply.result().complete(64) for reply in replies] == [True] * GOOD
        assert client.status("/health") == 200
        assert service.open_files < FILES
        assert service.memory < memory + MEMORY
    assert len(service.journal) < 10**6
