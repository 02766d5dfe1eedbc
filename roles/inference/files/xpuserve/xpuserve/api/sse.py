"""Server-sent events: how an answer is streamed."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    """One event."""
    return b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def stream(objects: AsyncIterator[dict[str, Any]]) -> AsyncIterator[bytes]:
    """The events of one answer, ended as OpenAI's clients expect."""
    async for item in objects:
        yield event(item)
    yield DONE
