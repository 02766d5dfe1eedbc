"""Telling systemd how the service is doing (sd_notify's protocol)."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def watchdog_seconds() -> float:
    """How often at least the service manager wants to hear WATCHDOG=1; 0 where it does not."""
    wanted = os.environ.get("WATCHDOG_PID", "") in ("", str(os.getpid()))
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 if wanted else 0.0


def notify(state: str, *, wait: bool = True) -> None:
    """Send lines such as READY=1 or STATUS=... to the service manager; without one, do nothing.

    Without `wait`, nothing is sent while the manager has not read what came before. That it cannot be told, or no file
    be opened, is no reason to end.
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
