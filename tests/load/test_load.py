"""The service under load, on the CPU: what it refuses, who leaves, how it ends, and keys that change meanwhile.

Engine openvino leaves batching to its library; with engine bigdl, it is the service's own scheduler that is under load.
"""

from __future__ import annotations

import random
import select
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.load.client import LoadClient, Reply
from tests.load.service import Service, wait_for

#: Requests on the device together, and in a queue that fills up soon.
ROWS, QUEUE = 8, 8
TIMES = 10


class Load(NamedTuple):
    """How much of it an engine gets. BigDL is several times slower on a CPU."""

    overload_seconds: int
    #: What they take of memory, all that follows is compared with. OpenVINO's process was seen to grow by a third over
    #: the first 1,100 answers, ever more slowly, and by 1 % over the next 300.
    warm_up_answers: int
    leaving: int
    clients: int  # of whom some are on the device where the service is to end, and the others wait
    drained: int


LOADS = {
    "openvino": Load(120, 1200, leaving=1000, clients=48, drained=200),
    "bigdl": Load(30, 150, leaving=200, clients=24, drained=50),
}
both = pytest.mark.parametrize("engine", LOADS)

#: More tokens than anyone waits for: where a client leaves and this goes on, nothing is at rest in time.
ENDLESS = 4000
WORDS = ["river", "stone", "amber", "engine", "window", "seven", "garden", "copper", "winter", "signal"]


def some_text(chance: random.Random) -> str:
    """A prompt that hardly another request has."""
    return " ".join(chance.choices(WORDS, k=chance.randint(5, 60)))


class Crowd:
    """For each answer that has ended, ten more requests come: of ten, one can be served."""

    def __init__(self, client: LoadClient) -> None:
        self._client = client
        self._due = threading.Semaphore(TIMES * (ROWS + QUEUE))
        self.gone = threading.Event()
        self.answered: list[bool] = []  # whether they were complete
        self.refused: Counter[tuple[int, bool]] = Counter()  # by status, and whether it was said when to come back

    def member(self, number: int) -> None:
        """Ask whenever it is due, until the crowd is gone."""
        chance = random.Random(number)  # noqa: S311
        while self._due.acquire() and not self.gone.is_set():
            tokens = chance.randint(8, 64)
            reply = self._client.ask(some_text(chance), tokens)
            if reply.status == 200:
                self.answered.append(reply.complete(tokens))
                self._due.release(TIMES)
            else:
                self.refused[reply.status, reply.headers.get("retry-after", "").isdigit()] += 1

    def leave(self, members: int) -> None:
        """Ask no more."""
        self.gone.set()
        self._due.release(members)


@both
def test_ten_times_as_much_as_it_can_do_is_refused_and_takes_no_memory(tmp_path: Path, engine: str) -> None:
    load = LOADS[engine]
    service = Service(tmp_path, engine, batch_requests=ROWS, queue_requests=QUEUE)
    members = 8 * (ROWS + QUEUE)
    with ThreadPoolExecutor(members) as pool, service.running() as client:
        crowd = Crowd(client)
        before: list[int] = []
        memory: list[int] = []

        def answered(count: int) -> bool:
            before.append(service.memory)
            return len(crowd.answered) >= count

        asking = [pool.submit(crowd.member, number) for number in range(members)]
        try:
            for answers in range(50, load.warm_up_answers + 1, 50):
                wait_for(partial(answered, answers))
            end = time.monotonic() + load.overload_seconds
            while time.monotonic() < end:
                crowd.gone.wait(1)
                memory.append(service.memory)
        finally:
            crowd.leave(members)
        for each in asking:
            each.result()
        print(
            f"answered {len(crowd.answered)}, refused {dict(crowd.refused)}, "
            f"MB at most {max(before) >> 20} before, then {[size >> 20 for size in memory[::5]]}"
        )
        assert len(crowd.answered) > load.warm_up_answers
        assert all(crowd.answered)
        assert set(crowd.refused) == {(429, True)}
        assert crowd.refused[429, True] > (TIMES - 3) * len(crowd.answered)
        assert max(memory) <= 1.05 * max(before)
        wait_for(lambda: client.at_rest() is None)


def leave(client: LoadClient, number: int) -> str:
    """Ask, and be gone at some time; the result is when."""
    chance = random.Random(number)  # noqa: S311
    when = chance.choice(["asking", "waiting", "reading"])
    if when == "reading":
        with closing(client.stream(Reply(), some_text(chance), ENDLESS, ignore_eos=True)) as stream:
            for _ in range(chance.randint(1, 20)):
                next(stream)
        return when
    body = client.body(some_text(chance), ENDLESS, ignore_eos=True)
    head = [f"{name}: {value}" for name, value in {**client.headers(), "Content-Length": len(body)}.items()]
    sent = "\r\n".join(["POST /v1/completions HTTP/1.1", "Host: localhost", *head, "", ""]).encode() + body
    with socket.create_connection(("127.0.0.1", client.port)) as connection:
        connection.sendall(sent[: chance.randrange(len(sent))] if when == "asking" else sent)
        if when == "waiting":
            select.select([connection], [], [], chance.random())  # for the first byte, if it is quick
    return when


@both
def test_of_those_who_leave_nothing_stays(tmp_path: Path, engine: str) -> None:
    many = LOADS[engine].leaving
    service = Service(tmp_path, engine, batch_requests=ROWS, queue_requests=many)
    with ThreadPoolExecutor(6 * ROWS) as pool, service.running() as client:
        assert client.ask("The capital of France is", 8).complete(8)
        wait_for(lambda: client.at_rest() is None)
        files, most = service.open_files, Counter[str]()
        leaving = [pool.submit(leave, client, number) for number in range(many)]
        while not all(each.done() for each in leaving):
            most |= client.metrics()
        left = Counter(each.result() for each in leaving)
        wait_for(lambda: client.at_rest() is None)
        wait_for(lambda: service.open_files <= files)
        print(f"left {dict(left)}, waiting {most['vllm:num_requests_waiting']}")
        assert min(left[when] for when in ("asking", "waiting", "reading")) > many / 5
        assert most["vllm:num_requests_running"] == ROWS
        assert most["vllm:num_requests_waiting"] > ROWS
        together = pool.map(partial(client.ask, tokens=40, temperature=0), ["The capital of France is"] * ROWS)
        assert all(reply.complete(40) and "Paris" in reply.text for reply in together)


def ask_until_it_ends(client: LoadClient, replies: list[tuple[int, Reply]], number: int) -> None:
    """Ask again and again, until one request is not answered."""
    chance = random.Random(number)  # noqa: S311
    reply = Reply(status=200)
    while reply.status == 200 and not reply.broken:
        tokens = chance.randint(8, 48)
        reply = client.ask(some_text(chance), tokens)
        replies.append((tokens, reply))


@both
def test_no_answer_is_cut_off_where_the_service_ends(tmp_path: Path, engine: str) -> None:
    load, drained, refused = LOADS[engine], 0, Counter[str]()
    clients = load.clients
    service = Service(tmp_path, engine, queue_requests=clients)
    while drained < load.drained:
        replies: list[tuple[int, Reply]] = []
        with ThreadPoolExecutor(clients) as pool, service.running() as client:
            asking = [pool.submit(ask_until_it_ends, client, replies, number) for number in range(clients)]
            wait_for(lambda replies=replies: len(replies) >= clients)  # type: ignore[misc]
            before = len(replies)
            service.send(signal.SIGTERM)
            assert service.ended() == 0
            for each in asking:
                each.result()
        begun = [(tokens, reply) for tokens, reply in replies if reply.status == 200]
        assert all(reply.complete(tokens) for tokens, reply in begun), service.journal[-5000:]
        # Nor of those of whom a client saw not one byte.
        assert service.outcomes <= {"stop", "length"}, service.journal[-5000:]
        others = [reply for _, reply in replies if reply.status != 200]
        assert {reply.status for reply in others} <= {0, 503}
        refused.update(reply.broken or str(reply.status) for reply in others)
        drained += sum(reply.status == 200 for _, reply in replies[before:])
        print(f"drained {drained}, refused {dict(refused)}")


def test_keys_change_while_answers_are_under_way(tmp_path: Path) -> None:
    old, new, file = "old-key-0123456789", "new-key-0123456789", tmp_path / "keys"

    def write(key: str) -> None:
        changed = file.with_suffix(".new")
        changed.write_text(f"{key}\n")
        changed.chmod(0o600)
        changed.replace(file)

    write(old)
    service = Service(tmp_path, batch_requests=ROWS, api_keys_file=str(file))
    with ThreadPoolExecutor(ROWS) as pool, service.running() as client, ExitStack() as stack:
        client.key = old
        replies = [Reply() for _ in range(ROWS)]
        streams = [
            stack.enter_context(closing(client.stream(reply, "One, two,", 400, ignore_eos=True))) for reply in replies
        ]
        assert len(list(pool.map(next, streams))) == ROWS
        write(new)
        service.send(signal.SIGHUP)
        newcomer = LoadClient(client.port, "")
        newcomer.key = new
        wait_for(lambda: newcomer.status("/v1/models") == 200)
        assert client.status("/v1/models") == 401
        assert client.ask("One, two,", 8).status == 401
        assert client.metrics()["vllm:num_requests_running"] == ROWS  # none of them was over before
        list(pool.map(list, streams))
        assert all(reply.complete(400) for reply in replies)
        client.key = new
        assert client.ask("One, two,", 8).complete(8)
