"""Messages between the service and the process of its engine, over a pair of Unix sockets.

A message is a JSON array after its length in four bytes. JSON because Python's own library has it on both ends, in
every version; because reading it cannot run code, as reading a pickle can; and because a step's batch takes only
10 to 20 microseconds, of a step's 5,000 or more. A step is one message, however many requests share it.
"""

from __future__ import annotations

import json
import math
import os
import select
import socket
import struct
from collections.abc import Sequence
from typing import Any, Optional

# Longest message in bytes: twice that of a prompt of a million tokens. Anything longer is not a message.
MOST_BYTES = 16 * 2**20
_LENGTH = struct.Struct("!I")
_READ = 65536
# json.loads() without its search for white space, which takes as long as all the rest.
_decode = json.JSONDecoder().raw_decode


def readable(files: Sequence[int], timeout: Optional[float]) -> list[int]:
    """Those of the file descriptors that are readable, after at most `timeout` seconds; None waits forever.

    select() supports no descriptor above 1023, and a service has more of them.
    """
    waiting = select.poll()
    for file in files:
        waiting.register(file, select.POLLIN)
    return [file for file, _event in waiting.poll(None if timeout is None else max(0, math.ceil(timeout * 1000)))]


class ChannelError(Exception):
    """The other end is gone, does not read, or sent something malformed."""


class Channel:
    """One end. One thread sends, and one receives; `fileno` is for waiting."""

    def __init__(self, end: socket.socket, timeout: Optional[float] = None) -> None:
        """`timeout` is the number of seconds for the other end to read what exceeds the socket's buffer."""
        self._socket = end
        self._socket.settimeout(timeout)
        self._buffer = bytearray()

    def fileno(self) -> int:
        """The socket's."""
        return self._socket.fileno()

    def send(self, message: list[Any]) -> None:
        """Send a message; raises ChannelError."""
        data = json.dumps(message, separators=(",", ":")).encode()
        if len(data) > MOST_BYTES:
            raise ChannelError(f"a message of {len(data)} bytes")
        try:
            self._socket.sendall(_LENGTH.pack(len(data)) + data)
        except OSError as error:
            raise ChannelError(str(error)) from None

    def receive(self, timeout: Optional[float] = None) -> Optional[list[list[Any]]]:
        """All messages present, at least one within `timeout` seconds (None: no limit).

        Returns an empty list if none came in time, and None if the other end closed. Raises ChannelError.
        """
        messages = self._messages()
        while not messages:
            if not readable([self._socket.fileno()], timeout):
                return []
            if not self._read():
                return None
            messages = self._messages()
        return messages

    def present(self) -> Optional[list[list[Any]]]:
        """The messages present, without waiting, as `receive` returns them. Raises ChannelError."""
        return self._messages() if self._read() else None

    def close(self) -> None:
        """Close this end; the other one sees that."""
        self._socket.close()

    def _read(self) -> bool:
        try:
            data = os.read(self._socket.fileno(), _READ)  # recv() of a socket with a timeout waits in a further call
        except BlockingIOError:
            return True
        except ConnectionResetError:  # it ended before it had read everything
            return False
        except OSError as error:
            raise ChannelError(str(error)) from None
        self._buffer += data
        return bool(data)

    def _messages(self) -> list[list[Any]]:
        """Take the complete messages out of the buffer."""
        found, at = [], 0
        while len(self._buffer) >= at + _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer, at)
            if length > MOST_BYTES:
                raise ChannelError(f"a message of {length} bytes")
            end = at + _LENGTH.size + length
            if len(self._buffer) < end:
                break
            try:
                found.append(_decode(self._buffer[at + _LENGTH.size : end].decode())[0])
            except ValueError:
                raise ChannelError(f"a message of {length} bytes that is no JSON") from None
            at = end
        del self._buffer[:at]
        return found
