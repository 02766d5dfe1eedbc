"""Who may hold a connection, and for how long: uvicorn by itself lets everyone, for ever.

A connection that has no request under way is idle, whether it was opened, asked before, or sends the head of a request
byte by byte. It has so many seconds, and where there are as many connections as may be, the one that is idle longest
makes room for the next. So those who only hold connections keep nobody out.
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

# Seconds for the head of a request, since the connection was made or the last answer ended; for its body; and for a
# client to read some of what was sent. A person's slow line takes none of these; a proxy's own are 60.
HEAD_SECONDS, BODY_SECONDS, READ_SECONDS = 20.0, 60.0, 30.0
# Seconds that a client whose body was refused has to read why, before its connection is closed on what it still sends.
LINGER_SECONDS = 2.0
# Connections that are accepted at once, and that may wait for that in the kernel. asyncio accepts as many before it
# looks at any as its backlog says.
ACCEPTED, QUEUED = 64, 2048
# Files that are not connections that were let in: what the libraries, the log and the engine's channel have open, and
# those that are accepted or closed just now.
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

# Of a request's scope, the extension that writes a piece of an answer's body, which has begun, to its connection.
WRITE = "xpuserve.write"

Message = MutableMapping[str, Any]


def most_connections(wanted: int) -> int:
    """How many connections there may be: as many as wanted, but fewer than this process may open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(1, min(wanted, hard - OTHER_FILES))


class Door:
    """The connections that there are."""

    def __init__(
        self,
        connections: int,
        client_connections: int = 0,
        *,
        head_seconds: float = HEAD_SECONDS,
        body_seconds: float = BODY_SECONDS,
        read_seconds: float = READ_SECONDS,
    ) -> None:
        """At most `connections`, and of one address `client_connections`; 0 is no limit of its own."""
        self._most = connections
        self._most_of_client = client_connections or connections
        self.head_seconds, self.body_seconds, self.read_seconds = head_seconds, body_seconds, read_seconds
        self.connections = 0  # that there are
        self._open: Counter[str] = Counter()  # by address
        self._idle: dict[Connection, None] = {}  # the one that is idle longest comes first
        self._idle_of: dict[str, dict[Connection, None]] = {}

    def enter(self, connection: Connection) -> bool:
        """Let a connection in, if need be for one that is idle; False where there is none."""
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
        """A connection has no request under way."""
        self._idle[connection] = None
        self._idle_of.setdefault(connection.address, {})[connection] = None

    def works(self, connection: Connection) -> None:
        """A connection has a request under way."""
        self._idle.pop(connection, None)
        idle = self._idle_of.get(connection.address, {})
        idle.pop(connection, None)
        if not idle:
            self._idle_of.pop(connection.address, None)

    def leave(self, connection: Connection) -> None:
        """A connection that was let in is over."""
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
    """uvicorn's, with limits; `door`, and `tls` where there is a certificate, are set in a class for each service.

    TLS begins here and not in asyncio, where a connection whose handshake does not come would be none of the door's.
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
        self._early = b""  # what came before the handshake's end was known here

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
        except OSError as error:  # what was said is no TLS, or the client left
            self.connection_lost(error)
            return
        finally:
            self._handshake = None
        if not isinstance(secured, asyncio.Transport) or not self._inside:  # it was ended, or left, meanwhile
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
        """See asyncio.Protocol: the client does not read as fast as there is something to read."""
        super().pause_writing()
        self._reader = self.loop.call_later(self.door.read_seconds, self.end)

    def resume_writing(self) -> None:
        """See asyncio.Protocol."""
        super().resume_writing()
        if self._reader:
            self._reader.cancel()

    def end(self) -> None:
        """Close at once, whatever was sent and not read."""
        self._leave()
        self.transport.abort()

    def _leave(self) -> None:
        if self._inside:
            self._inside = False
            self.door.leave(self)

    def _within(self, seconds: float) -> None:
        """End the connection unless this is called again within so many seconds, or the timer is cancelled."""
        if self._timer:
            self._timer.cancel()
        self._timer = self.loop.call_later(seconds, self.end)

    async def _serve(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer a request, whose body is read within its time, or not at all."""
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

        cycle = self.cycle

        async def write(data: bytes) -> None:
            """As uvicorn and h11 would, a chunk of a body whose length is not known; but in a fifth of the time."""
            if self.flow.write_paused and not cycle.disconnected:
                await self.flow.drain()
            if data and not cycle.disconnected:
                self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

        if scope["http_version"] == "1.1" and scope["method"] != "HEAD":
            scope["extensions"] = {**scope.get("extensions", {}), WRITE: write}
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


def protocol(door: Door, tls: Optional[ssl.SSLContext] = None) -> type[Connection]:
    """The class of a service's connections, which speak TLS where there is a context."""
    return type("Connection", (Connection,), {"door": door, "tls": tls})
