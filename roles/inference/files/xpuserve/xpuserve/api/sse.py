"""Server-sent events: the format of streamed answers."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import Any, Union

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from xpuserve.door import WRITE

DONE = b"data: [DONE]\n\n"
# For proxies, which close an idle connection; clients ignore it.
COMMENT, COMMENT_SECONDS = b": no token yet\n\n", 15.0
# A piece of the stream: an object, or encoded JSON.
Piece = Union[dict[str, Any], bytes]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encoded(data: Any) -> bytes:
    """JSON as sent."""
    return _encode(data).encode()


def event(data: Piece) -> bytes:
    """One event."""
    return b"data: %b\n\n" % (data if isinstance(data, bytes) else encoded(data))


def named(data: dict[str, Any]) -> bytes:
    """An event with its type as name, as in Responses and Messages."""
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), encoded(data))


class EventStream(Response):
    """The events of one answer, ended by `done` as clients expect. Pieces that arrive together are sent in one write.

    A piece goes directly to the connection, past the layers of the application: those would be most of a token's
    cost. The answer itself detects that the client has left.
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
