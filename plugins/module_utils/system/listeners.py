"""Which process listens on a TCP port of this node, and whether the node can listen on an address."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

_LISTEN = "0A"


@dataclass(frozen=True)
class Listener:
    """A listening socket. ``process`` and ``cgroup`` are empty if its owner is unknown."""

    address: str
    port: int
    inode: str
    process: str = ""
    pid: int = 0
    cgroup: str = ""

    def describe(self) -> str:
        """The owner for a message."""
        return f"{self.process} (process {self.pid})" if self.pid else "a process that cannot be seen"


def _address(field: str) -> str:
    """The address of a /proc/net/tcp field, 32-bit words in the byte order of the machine."""
    words = [bytes.fromhex(field[start : start + 8])[::-1] for start in range(0, len(field), 8)]
    return str(ipaddress.ip_address(b"".join(words)))


def listeners(port: int, proc: Path = Path("/proc")) -> list[Listener]:
    """Every socket that listens on PORT, with its owner if that is readable."""
    found = []
    for table in ("tcp", "tcp6"):
        try:
            rows = (proc / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            fields = row.split()
            host, _between, number = fields[1].partition(":")
            if fields[3] == _LISTEN and int(number, 16) == port:
                found.append(Listener(_address(host), port, fields[9]))
    return [_with_owner(listener, proc) for listener in found]


def _with_owner(listener: Listener, proc: Path) -> Listener:
    target = f"socket:[{listener.inode}]"
    owners = []
    for process in proc.iterdir():
        if not process.name.isdigit():
            continue
        try:
            if any(str(handle.readlink()) == target for handle in (process / "fd").iterdir()):
                name = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                cgroup = (process / "cgroup").read_text(encoding="utf-8", errors="replace")
                owners.append((int(process.name), name, cgroup))
        except OSError:
            continue
    if not owners:
        return listener
    # systemd and its service both hold a socket that systemd opened; name the service.
    pid, name, cgroup = max(owners)
    return Listener(listener.address, listener.port, listener.inode, name, pid, cgroup)


def overlaps(listening: str, wanted: str) -> bool:
    """Whether a socket on address LISTENING prevents one on WANTED."""
    first, second = ipaddress.ip_address(listening), ipaddress.ip_address(wanted)
    mapped = getattr(first, "ipv4_mapped", None)
    first = mapped or first
    return first.is_unspecified or second.is_unspecified or first == second


def is_network(text: str) -> bool:
    """Whether TEXT is an IP address or a network with a prefix length, as systemd accepts them."""
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return text.partition("/")[2].isdigit() or "/" not in text


def address_problem(host: str) -> str:
    """Why the node cannot listen on HOST, an IP address; "" if it can."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return "it is no IP address"
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.bind((host, 0))
    except OSError as error:
        return f"the node cannot listen there ({error.strerror or error})"
    return ""
