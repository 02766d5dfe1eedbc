"""From the engine's thread to the web server's loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Optional, TypeVar

from fastapi import Request as HTTPRequest

from xpuserve.api import errors
from xpuserve.api.observe import CLIENT_LEFT
from xpuserve.engine.loop import Engine, QueueFullError
from xpuserve.engine.request import Event, Failed, Piece, Request, SamplingParams

T = TypeVar("T")


def client_of(http: HTTPRequest) -> dict[str, Any]:
    """Whose a request is, as the engine's Request has it: of a key's name, or else of an address."""
    key = getattr(http.state, "key", None)
    if key:
        return {"client": key.name, "weight": float(key.weight), "key": key.name}
    return {"client": http.client.host if http.client else ""}


class Answer:
    """The events of all choices that one HTTP request asks for.

    They are cancelled as soon as the client is gone.
    """

    def __init__(self, engine: Engine, http: HTTPRequest, timeout: float = 0) -> None:
        """From now on the client is watched, and everything is to be over within `timeout` seconds; 0 is no limit."""
        self._engine = engine
        self._http = http
        self.client: str = client_of(http)["client"]
        self._began = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Optional[tuple[int, Event]]] = asyncio.Queue()
        self._first: list[Optional[tuple[int, Event]]] = []
        self._requests: list[Request] = []
        self._watcher = asyncio.create_task(self._watch())
        # Here and not in the engine, which may be what hangs.
        self._alarm = self._loop.call_later(timeout, self._expire, timeout) if timeout else None

    async def result(self, work: asyncio.Future[T]) -> T:
        """What `work` gives, unless time is over or the client leaves before: then it is cancelled, and APIError."""
        end = asyncio.ensure_future(self._queue.get())
        try:
            await asyncio.wait((work, end), return_when=asyncio.FIRST_COMPLETED)
            if not end.done():
                return work.result()
            item = end.result()
            if item and isinstance(item[1], Failed):
                raise errors.failure(item[1])
            raise errors.APIError(CLIENT_LEFT, "the client left")
        finally:
            end.cancel()
            work.cancel()

    def submit(
        self, choices: Sequence[tuple[list[int], SamplingParams]], *, continues: bool, low_priority: bool = False
    ) -> None:
        """Queue one request for each choice; `continues` says that their texts go on where those of their prompts end.

        Raises APIError (429) when too much waits.
        """
        requests = [
            Request(
                f"{self._http.state.request_id}-{n}",
                prompt,
                sampling,
                partial(self._deliver, n),
                continues,
                low_priority=low_priority,
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

    async def first(self) -> Optional[Event]:
        """The first event, which `events` gives out again; None if the client left before it."""
        self._first = [await self._queue.get()]
        return self._first[0][1] if self._first[0] else None

    async def events(self) -> AsyncIterator[tuple[int, Event]]:
        """All events with the number of their choice, up to the last, a failure, or where the client left."""
        unfinished = len(self._requests)
        try:
            while unfinished:
                item = self._first.pop() if self._first else await self._queue.get()
                if item is None:
                    return
                yield item
                unfinished -= not isinstance(item[1], Piece)
        finally:
            self.close()

    def close(self) -> None:
        """Nothing more is wanted of these requests."""
        self._watcher.cancel()
        if self._alarm:
            self._alarm.cancel()
        self._cancel()

    def _deliver(self, choice: int, event: Event) -> None:
        with suppress(RuntimeError):  # the server has stopped, and its loop with it
            self._loop.call_soon_threadsafe(self._queue.put_nowait, (choice, event))

    async def _watch(self) -> None:
        while (await self._http.receive())["type"] != "http.disconnect":
            pass
        self._cancel()
        self._queue.put_nowait(None)

    def _expire(self, timeout: float) -> None:
        self._cancel()
        code = "engine_restarting" if self._engine.trouble else "deadline_exceeded"
        self._queue.put_nowait((0, Failed(f"no complete answer within {timeout:g} seconds", code)))

    def _cancel(self) -> None:
        for request in self._requests:
            self._engine.cancel(request)
