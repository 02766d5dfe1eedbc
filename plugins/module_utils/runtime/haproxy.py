"""HAProxy's servers and their state, read from its admin socket."""

from __future__ import annotations

import csv
import socket
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: Time limit of an answer in seconds.
TIMEOUT = 10.0


class HAProxyError(FleetError):
    """HAProxy does not answer."""


@dataclass(frozen=True)
class Server:
    """One server: its state in HAProxy, and its running and waiting requests."""

    status: str
    sessions: int
    queued: int

    @property
    def gets_nothing(self) -> bool:
        """Whether it has no request and gets no new one."""
        return not self.status.startswith("UP") and not self.sessions and not self.queued


def ask(path: str, command: str) -> str:
    """Return the answer to a command. Raises HAProxyError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(TIMEOUT)
            client.connect(path)
            client.sendall(f"{command}\n".encode())
            return b"".join(iter(lambda: client.recv(65536), b"")).decode("utf-8", "replace")
    except OSError as error:
        raise HAProxyError(f"HAProxy does not answer at {path}: {error.strerror or error}") from error


def servers(statistics: str, names: Collection[str]) -> dict[str, Server]:
    """Return these servers from the answer to ``show stat``, as BACKEND/NAME: one may be in several backends."""
    rows: Iterable[dict[str, Any]] = csv.DictReader(statistics.lstrip("# ").splitlines())
    return {
        f"{row['pxname']}/{row['svname']}": Server(str(row["status"]), int(row["scur"] or 0), int(row["qcur"] or 0))
        for row in rows
        if row.get("svname") in names
    }


def plain(found: dict[str, Server]) -> dict[str, dict[str, Any]]:
    """Return servers as plain data."""
    return {name: asdict(server) for name, server in found.items()}
