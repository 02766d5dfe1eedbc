"""The events of one HTTP request's answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Optional, TypeVar

from fastapi import Request as HTTPRequest

from xpuserve.api import errors
from xpuserve.api.mailbox import Mailbox
from xpuserve.api.observe import CLIENT_LEFT
from xpuserve.engine.loop import Engine
from xpuserve.engine.queue import QueueFullError
from xpuserve.engine.request import Event, Failed, Piece, Request, SamplingParams

T = TypeVar("T")
Events = list[tuple[int, Event]]


def client_of(http: HTTPRequest) -> dict[str, Any]:
    """The client of a request, as in the engine's Request: a key's name, or else an address."""
    key = getattr(http.state, "key", None)
    if key:
        return {"client": key.name, "weight": float(key.weight), "key": key.name}
    return {"client": http.client.host if http.client else ""}


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
        self._pass: Callable[[], None] = self._wake  # called when there are events
        self._unfinished = 0  # choices
        self._requests: list[Request] = []
        self._watcher = asyncio.create_task(self._watch())
        # The limit is here and not in the engine, which may be what hangs.
        self._alarm = self._loop.call_later(timeout, self._expire, timeout) if timeout else None

    async def result(self, work: asyncio.Future[T]) -> T:
        """The result of `work`; on timeout or if the client leaves, cancel it and raise APIError."""
        end = asyncio.ensure_future(self.come())
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
                partial(self._mailbox.post, self, n),
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
        self._unfinished = len(requests)

    async def first(self, begun: float = 0, waiting: float = 0) -> Optional[Event]:
        """The first event, which `events` yields again; None if the client left before it.

        With `begun`, also None after about so many seconds on the device, or `waiting` seconds in the queue.
        """
        seconds = 0.0
        while not await self.come(begun):
            seconds += begun
            if seconds >= waiting or any(request.begun for request in self._requests):
                return None
        return self._there[0][1] if self._there[0] else None

    async def events(self) -> AsyncIterator[Events]:
        """All events with the number of their choice, up to the last, a failure, or the client's departure.

        Events that arrive together, as a step's do, are one list.
        """
        try:
            while self._unfinished:
                await self.come()
                yield self._taken()
        finally:
            self.close()

    async def pass_to(self, take: Callable[[Events], bool], drain: Callable[[], Awaitable[None]]) -> None:
        """Call `take` with the same events as they come: a task that waited for them would take longer than their work.

        After a call that returns False, wait for `drain` before the next.
        """
        while self._unfinished:
            await drain()
            paused = self._loop.create_future()
            self._pass = partial(self._pass_on, take, paused)
            try:
                if self._there:
                    self._pass()
                await paused
            finally:
                self._pass = self._wake

    def _pass_on(self, take: Callable[[Events], bool], paused: asyncio.Future[None]) -> None:
        if paused.done():
            return
        try:
            if not take(self._taken()) or not self._unfinished:
                paused.set_result(None)
        except Exception as error:
            paused.set_exception(error)

    def _taken(self) -> Events:
        """The events that are there."""
        found: Events = []
        came, self._there = self._there, []
        for item in came:
            if item is None:
                self._unfinished = 0
                break
            found.append(item)
            if not isinstance(item[1], Piece):
                self._unfinished = 0 if isinstance(item[1], Failed) else self._unfinished - 1
        return found

    async def come(self, seconds: float = 0) -> bool:
        """Wait for an event, at most so many seconds (0 is no limit); returns whether there is one."""
        if not self._there:
            self._waiter = self._loop.create_future()
            if seconds:
                await asyncio.wait((self._waiter,), timeout=seconds)
            else:
                await self._waiter
        return bool(self._there)

    def put(self, items: Sequence[Optional[tuple[int, Event]]]) -> None:
        """Receive events, on the loop of the web server."""
        self._there += items
        self._pass()

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def close(self) -> None:
        """Cancel these requests."""
        self._watcher.cancel()
        if self._alarm:
            self._alarm.cancel()
        self._cancel()

    async def _watch(self) -> None:
        while (await self._http.receive())["type"] != "http.disconnect":
            pass
        self._cancel()
        self.put([None])

    def _expire(self, timeout: float) -> None:
        self._cancel()
        code = "engine_restarting" if self._engine.trouble else "deadline_exceeded"
        self.put([(0, Failed(f"no complete answer within {timeout:g} seconds", code))])

    def _cancel(self) -> None:
        for request in self._requests:
            self._engine.cancel(request)
