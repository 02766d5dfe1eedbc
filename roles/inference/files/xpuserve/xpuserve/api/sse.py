"""Server-sent events: the format of streamed answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Union

from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from xpuserve.api.answer import Answer, Events
from xpuserve.door import BODY

DONE = b"data: [DONE]\n\n"
# For proxies, which close an idle connection; clients ignore it.
COMMENT, COMMENT_SECONDS = b": no token yet\n\n", 15.0
# A piece of the stream: an object, or an encoded event.
Piece = Union[dict[str, Any], bytes]

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def encoded(data: Any) -> bytes:
    """JSON as sent."""
    return _encode(data).encode()


def event(data: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: %b\n\n" % encoded(data)


def named(data: dict[str, Any]) -> bytes:
    """An event with its type as name, as in Responses and Messages."""
    return b"event: %b\ndata: %b\n\n" % (data["type"].encode(), encoded(data))


class EventStream(Response):
    """The events of one answer, ended by `done` as clients expect. Those that come together are sent in one write.

    They go directly to the connection, past the layers of the application and without a task: those would be most of
    a token's cost. The answer itself detects that the client has left.
    """

    media_type = "text/event-stream"

    def __init__(self, answer: Answer, encode: Callable[[Events], bytes], done: bytes) -> None:
        self._answer = answer
        self._encode = encode
        self._done = done
        self.status_code = 200
        self.background = None
        self.init_headers({"Cache-Control": "no-cache"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See Response."""
        answer, body = self._answer, scope.get("extensions", {}).get(BODY)

        async def say(data: bytes) -> None:
            await send({"type": "http.response.body", "body": data, "more_body": True})

        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            while not await answer.come(COMMENT_SECONDS):
                await say(COMMENT)
            if body:
                await answer.pass_to(lambda events: body.write(self._encode(events)), body.drain)
            else:
                async for events in answer.events():
                    await say(self._encode(events))
            await send({"type": "http.response.body", "body": self._done})
        finally:
            answer.close()
