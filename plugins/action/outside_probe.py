"""Action plugin: test from the controller whether a service accepts an address that it should refuse."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from typing import Any

from ansible.plugins.action import ActionBase

OPTIONS: dict[str, dict[str, Any]] = {
    "host": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "clients": {"type": "list", "elements": "str", "required": True},
}
_SECONDS = 3.0


class ActionModule(ActionBase):
    """Runs only on the controller."""

    _requires_connection = False
    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``outcome``, with a warning if the service accepts an address that it should refuse."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _ignored, options = self.validate_argument_spec(argument_spec=OPTIONS)
        outcome, source = probe(options["host"], options["port"], options["clients"])
        if outcome == "let in":
            result["warnings"] = [
                f"{options['host']}:{options['port']} lets {source}, this machine, connect, which is not one of "
                f"{', '.join(options['clients'])}. Unless the node sees this machine under another address (NAT), it "
                "does not limit connections."
            ]
        return {**result, "changed": False, "outcome": outcome, "source": source}


def probe(host: str, port: int, clients: Iterable[str]) -> tuple[str, str]:
    """Return the outcome of a connection, and the address that it came from.

    That is C(a client) if this machine may connect, C(kept out) or C(let in) if it may not.
    """
    try:
        family, kind, protocol, _name, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        return "kept out", ""
    with socket.socket(family, kind, protocol) as connection:
        connection.settimeout(_SECONDS)
        try:
            connection.connect(address)
            reached = True
        except OSError:
            reached = False
        source = str(connection.getsockname()[0])
    if reached and _is_client(source, clients):
        return "a client", source
    return ("let in" if reached else "kept out"), source


def _is_client(source: str, clients: Iterable[str]) -> bool:
    address = ipaddress.ip_address(source.partition("%")[0])
    return any(address in ipaddress.ip_network(client, strict=False) for client in clients)
