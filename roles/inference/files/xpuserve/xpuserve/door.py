"""Limits of connections, in number and time: uvicorn has none.

A connection without a request in progress is idle: new, between requests, or while it sends a request's head
byte by byte. Idle connections have a time limit, and at the maximum number of connections, the one that is idle
longest makes room for the next. So clients that only hold connections lock nobody out.
"""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Optional

from uvicorn.protocols.http.h11_impl import H11Protocol

# Seconds for the head of a request, since the connection or the last answer; for its body; and for a
# client to read some of the answer. A person's slow line stays within these; a proxy's own are 60.
HEAD_SECONDS, BODY_SECONDS, READ_SECONDS = 20.0, 60.0, 30.0
# Seconds for a client whose body was refused to read the reason, before its connection is closed.
LINGER_SECONDS = 2.0
# Connections accepted at once, and pending ones in the kernel. asyncio accepts as many as its backlog
# before it serves any.
ACCEPTED, QUEUED = 64, 2048
# Open files beside admitted connections: those of the libraries, the log and the engine's channel, and
# connections being accepted or closed.
OTHER_FILES = 128 + 4 * ACCEPTED
_FULL = json.dumps(
    {
        "error": {
            "message": "the server has too many connections; try again later",
            "type": "rate_limit_error",
            "param": None,
            "code": "too_many_connections",
        }
    }
).encode()
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nRetry-After: 5\r\nConnection: close\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(_FULL), _FULL)
)

# The extension of a request's scope with the Body of its answer.
BODY = "xpuserve.body"

Message = MutableMapping[str, Any]


def most_connections(wanted: int) -> int:
    """The maximum number of connections: as requested, but below this process's limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, min(wanted, hard - OTHER_FILES))


class Door:
    """The open connections."""

    def __init__(
        self,
        connections: int,
        client_connections: int = 0,
        *,
        head_seconds: float = HEAD_SECONDS,
        body_seconds: float = BODY_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """At most `connections`, and `client_connections` of one address; 0 is no separate limit."""
        self._most = connections
        self._most_of_client = client_connections or connections
        self.head_seconds, self.body_seconds, self.read_seconds = head_seconds, body_seconds, read_seconds
        self.connections = 0  # all
        self._open: Counter[str] = Counter()  # by address
        self._idle: dict[Connection, None] = {}  # idle longest first
        self._idle_of: dict[str, dict[Connection, None]] = {}

    def enter(self, connection: Connection) -> bool:
        """Admit a connection, if necessary in place of an idle one; False without room."""
        address = connection.address
        if self._open[address] >= self._most_of_client and not self._close_one(self._idle_of.get(address, {})):
            return False
        if self.connections >= self._most and not self._close_one(self._idle):
            return False
        self._open[address] += 1
        self.connections += 1
        self.rests(connection)
        return True

    def rests(self, connection: Connection) -> None:
        """A connection has no request in progress."""
        self._idle[connection] = None
        self._idle_of.setdefault(connection.address, {})[connection] = None

    def works(self, connection: Connection) -> None:
        """A connection has a request in progress."""
        self._idle.pop(connection, None)
        idle = self._idle_of.get(connection.address, {})
        idle.pop(connection, None)
        if not idle:
            self._idle_of.pop(connection.address, None)

    def leave(self, connection: Connection) -> None:
        """An admitted connection is closed."""
        self.works(connection)
        self.connections -= 1
        self._open[connection.address] -= 1
        if not self._open[connection.address]:
            del self._open[connection.address]

    def _close_one(self, idle: dict[Connection, None]) -> bool:
        for connection in idle:
            connection.end()
            return True
        return False


class Connection(H11Protocol):
    """uvicorn's, with limits; a subclass for each service sets `door`, and `tls` if there is a certificate.

    TLS starts here and not in asyncio, where connections with a pending handshake would not count.
    """

    door: Door
    tls: Optional[ssl.SSLContext] = None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        served, self.app = self.app, self._serve
        self._served: Callable[..., Awaitable[None]] = served
        self.address = ""
        self._inside = False
        self._timer: Optional[asyncio.TimerHandle] = None
        self._reader: Optional[asyncio.TimerHandle] = None
        self._handshake: Optional[asyncio.Task[None]] = None
        self._early = b""  # data received before the handshake's end was known here

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio.Protocol."""
        super().connection_made(transport)
        self.address = self.client[0] if self.client else ""
        self._inside = self.door.enter(self)
        if self._inside:
            self._within(self.door.head_seconds)
            if self.tls:
                self._handshake = self.loop.create_task(self._begin_tls(transport, self.tls))
        elif self.tls:
            transport.abort()
        else:
            transport.write(FULL)
            transport.close()

    async def _begin_tls(self, transport: asyncio.Transport, context: ssl.SSLContext) -> None:
        try:
            secured = await self.loop.start_tls(
                transport, self, context, server_side=True, ssl_handshake_timeout=self.door.head_seconds
            )
        except OSError as error:  # the data is no TLS, or the client left
            self.connection_lost(error)
            return
        finally:
            self._handshake = None
        if not isinstance(secured, asyncio.Transport) or not self._inside:  # it was closed meanwhile
            self.end()
            self.connection_lost(None)
            return
        super().connection_made(secured)
        if self._early:
            self.data_received(self._early)

    def data_received(self, data: bytes) -> None:
        """See asyncio.Protocol."""
        if self._handshake:
            self._early += data
        else:
            super().data_received(data)

    def connection_lost(self, exc: Optional[Exception]) -> None:
        """See asyncio.Protocol."""
        super().connection_lost(exc)
        self._leave()
        for timer in (self._timer, self._reader):
            if timer:
                timer.cancel()

    def pause_writing(self) -> None:
        """See asyncio.Protocol: the client reads too slowly."""
        super().pause_writing()
        self._reader = self.loop.call_later(self.door.read_seconds, self.end)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._reader:
            self._reader.cancel()

    def end(self) -> None:
        """Close at once, and drop unread data."""
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        if self._inside:
            self._inside = False
            self.door.leave(self)

    def _within(self, seconds: float) -> None:
        """Close the connection unless this is called again within so many seconds, or the timer is cancelled."""
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.end)

    async def _serve(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request; its body must arrive in time."""
        self.door.works(self)
        self._within(self.door.body_seconds)
        headers = dict(scope["headers"])
        left = b"transfer-encoding" in headers or headers.get(b"content-length", b"0") != b"0"

        def whole() -> None:
            nonlocal left
            left = False
            if self._timer:
                self._timer.cancel()

        async def received() -> Message:
            message = await receive()
            if left and message["type"] == "http.request" and not message.get("more_body"):
                whole()
            return message

        if scope["http_version"] == "1.1" and scope["method"] != "HEAD":
            scope["extensions"] = {**scope.get("extensions", {}), BODY: Body(self)}
        if not left:
            whole()
        try:
            await self._served(scope, received, send)
        finally:
            if self.transport and self._inside:
                if left:
                    self.transport.pause_reading()
                    self._within(LINGER_SECONDS)
                else:
                    self._within(self.door.head_seconds)
                self.door.rests(self)


class Body:
    """An answer's body of unknown length, written past uvicorn and h11, which take five times as long."""

    def __init__(self, connection: Connection) -> None:
        self._flow, self._transport, self._cycle = connection.flow, connection.transport, connection.cycle

    async def drain(self) -> None:
        """Wait until the client has read enough of it."""
        if self._flow.write_paused and not self._cycle.disconnected:
            await self._flow.drain()

    def write(self, data: bytes) -> bool:
        """Write a chunk; returns whether more can be written at once."""
        if data and not self._cycle.disconnected:
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        return not self._flow.write_paused


def protocol(door: Door, tls: Optional[ssl.SSLContext] = None) -> type[Connection]:
    """The class of a service's connections, with TLS if there is a context."""
    return type("Connection", (Connection,), {"door": door, "tls": tls})
