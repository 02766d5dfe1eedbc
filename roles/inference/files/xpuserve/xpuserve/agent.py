"""What a gateway is told of an instance: HAProxy's agent protocol, one line for each connection.

A gateway sees connections, and an instance its queue: a long prompt is one connection, and many seconds of work.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Callable

from xpuserve.engine.loop import Engine

# Few steps: a gateway that hashes conversations over instances moves some of them with every change of a weight.
IDLE, BUSY, CROWDED = 100, 50, 25
# The most that one gets until so many seconds after it was drained: HAProxy's slowstart is for servers that were down.
RETURNING = ((10.0, CROWDED), (20.0, BUSY))


def weight(running: int, waiting: int) -> int:
    """Percent of an instance's usual share of requests: less where some wait, least where more wait than run."""
    if not waiting:
        return IDLE
    return BUSY if waiting <= running else CROWDED


class Agent:
    """Answers a gateway. A file of the name `drain` lets it send no more requests, as does an instance that ends."""

    def __init__(
        self, engine: Engine, drain: Path, serving: Callable[[], bool], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._now = now
        self._drained_at = float("-inf")
        self._engine = engine
        self._drain = drain
        self._serving = serving

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen; raises OSError."""
        return await asyncio.start_server(self._answer, host, port, backlog=128)

    def line(self) -> str:
        """What is said now. `ready` takes an earlier `drain` back; whether it answers at all, /ready says."""
        if self._drain.exists() or not self._serving():
            self._drained_at = self._now()
            return "drain"
        since = self._now() - self._drained_at
        most = next((share for seconds, share in RETURNING if since < seconds), IDLE)
        return f"ready up {min(most, weight(self._engine.running, self._engine.waiting))}%"

    async def _answer(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(f"{self.line()}\n".encode())
            await writer.drain()
        except OSError:
            pass  # it left
        finally:
            writer.close()
