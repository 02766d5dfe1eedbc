"""Server-sent events: how an answer is streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

DONE = b"data: [DONE]\n\n"


_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def event(data: dict[str, Any]) -> bytes:
    """One event."""
    return f"data: {_encode(data)}\n\n".encode()


async def stream(objects: AsyncIterator[list[dict[str, Any]]]) -> AsyncIterator[bytes]:
    """The events of one answer, ended as OpenAI's clients expect. What comes together is one piece, so one write."""
    async for items in objects:
        yield b"".join(map(event, items))
    yield DONE
