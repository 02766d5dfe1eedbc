"""Events on their way to a web server's loop."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import wait_for
from xpuserve.api.mailbox import Mailbox
from xpuserve.engine.request import Event, Piece

A, B, C = map(Piece, "ABC")


class Kept:
    """An answer that keeps what it gets, and how much at once."""

    def __init__(self) -> None:
        self.got: list[list[tuple[int, Event]]] = []

    def put(self, items: Sequence[tuple[int, Event]]) -> None:
        self.got.append(list(items))


class Loop:
    """A loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.mailbox = Mailbox(self.loop)
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def end(self) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


@pytest.fixture
def running() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.end()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_what_is_posted_from_elsewhere_comes(running: Loop) -> None:
    answer = Kept()
    running.mailbox.post(answer, 0, A)
    wait_for(lambda: answer.got == [[(0, A)]])
    running.mailbox.post(answer, 1, B)
    wait_for(lambda: answer.got == [[(0, A)], [(1, B)]])


def test_what_is_received_comes_at_once_and_so_does_what_others_post_meanwhile(
    running: Loop, pipe: tuple[int, int]
) -> None:
    one, other = Kept(), Kept()
    receives, posted = threading.Event(), threading.Event()

    def receive() -> bool:
        os.read(pipe[0], 100)
        running.mailbox.post(one, 0, A)
        receives.set()
        assert posted.wait(60)
        running.mailbox.post(one, 1, B)
        return True

    end = running.mailbox.listen(pipe[0], receive)
    os.write(pipe[1], b"x")
    assert receives.wait(60)
    running.mailbox.post(other, 0, C)
    posted.set()
    wait_for(lambda: other.got == [[(0, C)]])
    assert one.got == [[(0, A), (1, B)]]
    end()


def test_who_wants_no_more_is_not_called(running: Loop, pipe: tuple[int, int]) -> None:
    calls: list[int] = []

    def receive() -> bool:
        calls.append(1)  # and does not read: the pipe stays readable
        return len(calls) < 3

    os.write(pipe[1], b"x")
    end = running.mailbox.listen(pipe[0], receive)
    wait_for(lambda: len(calls) == 3)
    end()
    assert len(calls) == 3


def test_the_number_of_a_descriptor_may_be_anothers_after_the_end(running: Loop, pipe: tuple[int, int]) -> None:
    calls: list[int] = []

    def receive() -> bool:
        calls.append(1)
        return False

    os.write(pipe[1], b"x")
    end = running.mailbox.listen(pipe[0], receive)
    wait_for(lambda: bool(calls))
    found: queue.Queue[bool] = queue.Queue()
    running.loop.call_soon_threadsafe(running.loop.add_reader, pipe[0], os.read, pipe[0], 1)
    end()
    running.loop.call_soon_threadsafe(lambda: found.put(running.loop.remove_reader(pipe[0])))
    assert found.get(timeout=60)
    assert calls == [1]


def test_the_end_waits_for_a_call_in_progress(running: Loop, pipe: tuple[int, int]) -> None:
    calls, may_return = threading.Event(), threading.Event()

    def receive() -> bool:
        calls.set()
        assert may_return.wait(60)
        return True

    end = running.mailbox.listen(pipe[0], receive)
    os.write(pipe[1], b"x")
    assert calls.wait(60)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(end)
        running.loop.call_soon_threadsafe(lambda: None)
        assert not ended.done()
        may_return.set()
        ended.result(60)
    assert not running.loop.remove_reader(pipe[0])


def test_a_loop_that_has_ended_holds_up_nobody(running: Loop, pipe: tuple[int, int]) -> None:
    end = running.mailbox.listen(pipe[0], lambda: True)
    running.end()
    end()
    running.mailbox.post(Kept(), 0, A)
