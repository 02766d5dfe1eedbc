"""From the engine to the answers on the web server's loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar, Optional, Protocol
from weakref import WeakKeyDictionary, ref

from xpuserve.engine.request import Event

# Seconds between looks at a loop that may have stopped.
STOPPED_SECONDS = 0.5


class Receiver(Protocol):
    """An answer."""

    def put(self, items: Sequence[tuple[int, Event]]) -> None:
        """Receive events, on the loop."""


class Mailbox:
    """Passes a step's events to the answers of one loop: it wakes the loop once, however many events there are.

    Where the engine is a process, the loop itself receives its results (`listen`): a thread between them, and its
    waking of the loop, would take as long as all else of a token.
    """

    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._posted: deque[tuple[Receiver, int, Event]] = deque()
        self._called = False  # `_hand_out` will run, and has not begun

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Mailbox:
        """The mailbox of a loop; call it on that loop."""
        return cls._all.setdefault(loop, cls(loop))

    def post(self, answer: Receiver, choice: int, event: Event) -> None:
        """Pass an event of a choice to an answer; on any thread."""
        self._posted.append((answer, choice, event))
        if not self._called:
            self._called = True
            self._call(self._hand_out)

    def listen(self, descriptor: int, receive: Callable[[], bool]) -> Callable[[], None]:
        """Call `receive` on the loop whenever the descriptor is readable, until it returns False.

        Returns a function that ends this; it is for another thread, and returns when no call is in progress.
        """

        def received() -> None:
            self._called = True
            try:
                goes_on = receive()
            finally:
                self._hand_out()
            if not goes_on:
                remove()

        def begin() -> None:
            if loop := self._loop():
                loop.add_reader(descriptor, received)

        def remove() -> None:
            # Once: after that the descriptor may be closed, and its number be that of another connection.
            if not ended.is_set() and (loop := self._loop()):
                loop.remove_reader(descriptor)
            ended.set()

        def end() -> None:
            self._call(remove)
            while (loop := self._loop()) and not loop.is_closed() and not ended.wait(STOPPED_SECONDS):
                pass

        ended = threading.Event()
        self._call(begin)
        return end

    def _call(self, function: Callable[[], None]) -> None:
        """Call on the loop, unless the server and its loop have stopped."""
        loop: Optional[asyncio.AbstractEventLoop] = self._loop()
        if loop:
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(function)

    def _hand_out(self) -> None:
        self._called = False  # first: what is posted from now on calls again
        events: dict[Receiver, list[tuple[int, Event]]] = {}
        while self._posted:
            answer, choice, event = self._posted.popleft()
            events.setdefault(answer, []).append((choice, event))
        for answer, its in events.items():
            answer.put(its)
