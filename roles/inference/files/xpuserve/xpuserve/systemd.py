"""Telling systemd how the service is doing (sd_notify's protocol)."""

from __future__ import annotations

import os
import socket


def notify(state: str) -> None:
    """Send lines such as READY=1 or STATUS=... to the service manager; without one, do nothing."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.connect(address)
        channel.sendall(state.encode())
