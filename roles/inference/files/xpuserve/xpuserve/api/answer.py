"""From the engine's thread to the web server's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Optional

from fastapi import Request as HTTPRequest

from xpuserve.api import errors
from xpuserve.engine.loop import Engine, QueueFullError
from xpuserve.engine.request import Event, Failed, Piece, Request, Sampling


class Answer:
    """The events of all choices that one HTTP request asks for.

    They are cancelled as soon as the client is gone.
    """

    def __init__(
        self,
        engine: Engine,
        http: HTTPRequest,
        choices: Sequence[tuple[list[int], Sampling]],
        timeout: float = 0,
        *,
        continues: bool = False,
    ) -> None:
        """Queue one request for each choice, to be over within `timeout` seconds; 0 is no limit. `continues` says that
        their texts go on where those of their prompts end.

        Raises APIError (429) when too many wait.
        """
        self._engine = engine
        self._http = http
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Optional[tuple[int, Event]]] = asyncio.Queue()
        self._first: list[Optional[tuple[int, Event]]] = []
        self._requests = [
            Request(f"{http.state.request_id}-{n}", prompt, sampling, partial(self._deliver, n), continues)
            for n, (prompt, sampling) in enumerate(choices)
        ]
        for request in self._requests:
            request.together = self._requests
        try:
            engine.submit(*self._requests)
        except QueueFullError:
            raise errors.busy(engine.retry_after) from None
        self._watcher = asyncio.create_task(self._watch())
        # Here and not in the engine, which may be what hangs.
        self._alarm = self._loop.call_later(timeout, self._expire, timeout) if timeout else None

    async def first(self) -> Optional[Event]:
        """The first event, which `events` gives out again; None if the client left before it."""
        try:
            self._first = [await self._queue.get()]
        except asyncio.CancelledError:
            self.close()
            raise
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
        self._queue.put_nowait((0, Failed(f"no complete answer within {timeout:g} seconds", "deadline_exceeded")))

    def _cancel(self) -> None:
        for request in self._requests:
            self._engine.cancel(request)
