"""Report an instance's load to a gateway: HAProxy's agent protocol, one line for each connection.

A gateway sees connections, not the queue of an instance: a long prompt is one connection, and many seconds of work.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Callable

from xpuserve.engine.loop import Engine

# Few steps: a gateway that hashes conversations over instances moves some of them with every change of weights.
IDLE, BUSY, CROWDED = 100, 50, 25
# Limit for so many seconds after a drain: HAProxy's slowstart applies only to servers that were down.
RETURNING = ((10.0, CROWDED), (20.0, BUSY))


def weight(running: int, waiting: int) -> int:
    """Percent of an instance's usual share of requests: less if some wait, least if more wait than run."""
    if not waiting:
        return IDLE
    return BUSY if waiting <= running else CROWDED


class Agent:
    """Answers a gateway. The file `drain` stops new requests, as does an instance that is stopping."""

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
        """The present line. `ready` cancels an earlier `drain`; /ready reports whether the instance answers at all."""
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
