"""Notify systemd of the service's state (sd_notify's protocol)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def watchdog_seconds() -> float:
    """Maximum interval in seconds between WATCHDOG=1 messages; 0 without a watchdog."""
    wanted = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 if wanted else 0.0


def notify(state: str, *, wait: bool = True) -> None:
    """Send lines such as READY=1 or STATUS=... to the service manager; without one, do nothing.

    Without `wait`, nothing is sent while the manager has not read earlier messages. Failures to send, or to open a
    socket, are ignored.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.setblocking(wait)
        channel.connect(address)
        channel.sendall(state.encode())
