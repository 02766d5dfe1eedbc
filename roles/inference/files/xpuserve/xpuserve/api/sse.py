"""Server-sent events: how an answer is streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, Union

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from xpuserve.door import WRITE

DONE = b"data: [DONE]\n\n"
# For proxies, which end a connection on which nothing comes; clients pass over it.
COMMENT, COMMENT_SECONDS = b": no token yet\n\n", 15.0
# A piece of the stream: an object, or one that is JSON already.
Piece = Union[dict[str, Any], bytes]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encoded(data: Any) -> bytes:
    """JSON as it is sent."""
    return _encode(data).encode()


def event(data: Piece) -> bytes:
    """One event."""
    return b"data: %b\n\n" % (data if isinstance(data, bytes) else encoded(data))


def named(data: dict[str, Any]) -> bytes:
    """An event that has its type as name too, as Responses and Messages have them."""
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), encoded(data))


class EventStream(Response):
    """The events of one answer, ended by `done` as clients expect. What comes together is one piece, so one write.

    A piece goes to the connection without a way through every layer of the application: that is most of what a token
    would cost. That the client has left, the answer itself learns.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[list[bytes], None], done: bytes) -> None:
        self._events = events
        self._done = done
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response."""
        write = scope.get("extensions", {}).get(WRITE)
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            async for events in self._events:
                piece = b"".join(events)
                if write:
                    await write(piece)
                else:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            await send({"type": "http.response.body", "body": self._done})
        finally:
            await self._events.aclose()
