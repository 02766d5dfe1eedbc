"""From the engine's thread to the web server's loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, ClassVar, Optional, TypeVar
from weakref import WeakKeyDictionary, ref

from fastapi import Request as HTTPRequest

from xpuserve.api import errors
from xpuserve.api.observe import CLIENT_LEFT
from xpuserve.engine.loop import Engine
from xpuserve.engine.queue import QueueFullError
from xpuserve.engine.request import Event, Failed, Piece, Request, SamplingParams

T = TypeVar("T")


def client_of(http: HTTPRequest) -> dict[str, Any]:
    """The client of a request, as in the engine's Request: a key's name, or else an address."""
    key = getattr(http.state, "key", None)
    if key:
        return {"client": key.name, "weight": float(key.weight), "key": key.name}
    return {"client": http.client.host if http.client else ""}


class Mailbox:
    """Passes a step's events to the answers of one loop: it wakes the loop once, however many events there are."""

    _all: ClassVar[WeakKeyDictionary[asyncio.AbstractEventLoop, Mailbox]] = WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._lock = threading.Lock()
        self._posted: list[tuple[Answer, tuple[int, Event]]] = []

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Mailbox:
        """The mailbox of a loop; call it on that loop."""
        return cls._all.setdefault(loop, cls(loop))

    def post(self, answer: Answer, item: tuple[int, Event]) -> None:
        """Pass an event to an answer; on any thread."""
        with self._lock:
            self._posted.append((answer, item))
            first = len(self._posted) == 1
        loop = self._loop()
        if first and loop:
            with suppress(RuntimeError):  # the server has stopped, and its loop with it
                loop.call_soon_threadsafe(self._hand_out)

    def _hand_out(self) -> None:
        with self._lock:
            posted, self._posted = self._posted, []
        for answer, item in posted:
            answer.put(item)


class Answer:
    """The events of all choices of one HTTP request.

    Its requests are cancelled as soon as the client is gone.
    """

    def __init__(self, engine: Engine, http: HTTPRequest, timeout: float = 0) -> None:
        """Watch the client from now on, and limit the whole answer to `timeout` seconds; 0 is no limit."""
        self._engine = engine
        self._http = http
        self.client: str = client_of(http)["client"]
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._mailbox = Mailbox.of(self._loop)
        self._there: list[Optional[tuple[int, Event]]] = []  # received events; None means that the client left
        self._waiter: Optional[asyncio.Future[None]] = None
        self._requests: list[Request] = []
        self._watcher = asyncio.create_task(self._watch())
        # The limit is here and not in the engine, which may be what hangs.
        self._alarm = self._loop.call_later(timeout, self._expire, timeout) if timeout else None

    async def result(self, work: asyncio.Future[T]) -> T:
        """The result of `work`; on timeout or if the client leaves, cancel it and raise APIError."""
        end = asyncio.ensure_future(self._come())
        try:
            await asyncio.wait((work, end), return_when=asyncio.FIRST_COMPLETED)
            if not end.done():
                return work.result()
            item = self._there[0]
            if item and isinstance(item[1], Failed):
                raise errors.failure(item[1])
            raise errors.APIError(CLIENT_LEFT, "the client left")
        finally:
            end.cancel()
            work.cancel()

    def submit(
        self,
        choices: Sequence[tuple[list[int], SamplingParams]],
        *,
        continues: bool,
        markers: Sequence[str] = (),
        low_priority: bool = False,
        salt: str = "",
    ) -> None:
        """Queue one request for each choice; with `continues`, their texts continue those of their prompts.

        `markers` are special tokens that appear in their texts.

        Raises APIError (429) if the queue is full.
        """
        requests = [
            Request(
                f"{self._http.state.request_id}-{n}",
                prompt,
                sampling,
                partial(self._deliver, n),
                continues,
                markers=markers,
                low_priority=low_priority,
                salt=salt,
                **client_of(self._http),
            )
            for n, (prompt, sampling) in enumerate(choices)
        ]
        for request in requests:
            request.together = requests
            request.times.submitted = self._began
        try:
            self._engine.submit(*requests)
        except QueueFullError:
            raise errors.busy(self._engine.retry_after) from None
        self._requests = requests

    async def first(self, begun: float = 0, waiting: float = 0) -> Optional[Event]:
        """The first event, which `events` yields again; None if the client left before it.

        With `begun`, also None after about so many seconds on the device, or `waiting` seconds in the queue.
        """
        seconds = 0.0
        while not await self._come(begun):
            seconds += begun
            if seconds >= waiting or any(request.begun for request in self._requests):
                return None
        return self._there[0][1] if self._there[0] else None

    async def events(self, silence: float = 0) -> AsyncIterator[list[tuple[int, Event]]]:
        """All events with the number of their choice, up to the last, a failure, or the client's departure.

        Events that arrive together, as a step's do, are one list. Before the first event, it yields an empty list after
        each `silence` seconds, unless that is 0.
        """
        unfinished = len(self._requests)
        try:
            while unfinished:
                if not await self._come(silence):
                    yield []
                    continue
                came, self._there, silence = self._there, [], 0
                items = [item for item in came if item]
                unfinished -= sum(not isinstance(event, Piece) for _ignored, event in items)
                if items:
                    yield items
                if len(items) < len(came):
                    return
        finally:
            self.close()

    async def _come(self, seconds: float = 0) -> bool:
        """Wait for an event, at most so many seconds (0 is no limit); returns whether there is one."""
        if not self._there:
            self._waiter = self._loop.create_future()
            if seconds:
                await asyncio.wait((self._waiter,), timeout=seconds)
            else:
                await self._waiter
        return bool(self._there)

    def put(self, item: Optional[tuple[int, Event]]) -> None:
        """Receive an event, on the loop of the web server."""
        self._there.append(item)
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Cancel these requests."""
        self._watcher.cancel()
        if self._alarm:
            self._alarm.cancel()
        self._cancel()

    def _deliver(self, choice: int, event: Event) -> None:
        self._mailbox.post(self, (choice, event))

    async def _watch(self) -> None:
        while (await self._http.receive())["type"] != "http.disconnect":
            pass
        self._cancel()
        self.put(None)

    def _expire(self, timeout: float) -> None:
        self._cancel()
        code = "engine_restarting" if self._engine.trouble else "deadline_exceeded"
        self.put((0, Failed(f"no complete answer within {timeout:g} seconds", code)))

    def _cancel(self) -> None:
        for request in self._requests:
            self._engine.cancel(request)
