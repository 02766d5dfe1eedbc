"""Limits the clients of the service: by systemd's IP filters if they work, else by nftables.

systemd ignores filters that it cannot set (no BPF for control groups, as in many containers): a unit with
IPAddressDeny runs there, and everybody can connect. So this tests it: a unit that denies all addresses sends itself
a packet.
"""

from __future__ import annotations

import ipaddress
import sys
from collections.abc import Iterable, Sequence

from ansible_collections.xpu.fleet.plugins.module_utils.system.command import NOT_FOUND, Run
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

TABLE = "xpu_fleet"
RULES = "etc/xpuserve/clients.nft"
DROP_IN = "etc/systemd/system/xpuserve@.service.d/clients.conf"
#: Exit statuses of the probe; others mean nothing.
_FILTERED, _PASSED = 10, 11
_SECONDS = 2
_PROBE = f"""
import socket, sys
receiver, sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
receiver.bind(("127.0.0.1", 0))
receiver.settimeout({_SECONDS})
try:
    sender.sendto(b"x", receiver.getsockname())
    receiver.recv(1)
except (PermissionError, TimeoutError, socket.timeout):
    sys.exit({_FILTERED})
sys.exit({_PASSED})
"""
#: The unit loads this before it starts; "+" runs as root, outside of the sandbox. It does not start without its rules.
UNIT = f"""# Written by xpu.fleet: systemd's IP filters do nothing on this node.
[Service]
ExecStartPre=+/usr/sbin/nft -f /{RULES}
"""


_NOTHING = (
    "every address could connect: systemd's IP filters do nothing on this node (no BPF for control groups, as in many "
    "containers)"
)
_ALONE = "serve the node alone (inference_host: 127.0.0.1)"


class FilterError(FleetError):
    """Clients cannot be limited; the message says why and what helps."""


def systemd_filters(run: Run) -> bool:
    """Tell whether systemd's filters work. Raises FilterError if that cannot be tested."""
    command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--property=IPAddressDeny=any"]
    status, output, error = run([*command, sys.executable, "-I", "-c", _PROBE])
    if status not in (_FILTERED, _PASSED):
        said = (error or output).strip()[-300:] or f"status {status}"
        raise FilterError(f"cannot check systemd's IP filters with systemd-run: {said}")
    return status == _FILTERED


def rules(ports: Sequence[int], clients: Iterable[str]) -> str:
    """Return the rules for nft: only these clients reach the ports from the network. It replaces the whole table."""
    networks = [ipaddress.ip_network(client, strict=False) for client in clients]
    lines = [
        "# Written by xpu.fleet; changes are overwritten.",
        f"table inet {TABLE}",
        f"delete table inet {TABLE}",
        f"table inet {TABLE} {{",
    ]
    for version, kind in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        collapsed = ipaddress.collapse_addresses([one for one in networks if one.version == version])  # type: ignore[type-var]
        members = ", ".join(map(str, collapsed))
        elements = f" elements = {{ {members} }}" if members else ""
        lines.append(f"    set clients{version} {{ type {kind}; flags interval;{elements} }}")
    reached = f'tcp dport {{ {", ".join(map(str, ports))} }} iifname != "lo"'
    lines += [
        "    chain input {",
        "        type filter hook input priority -10; policy accept;",
        f"        {reached} ip saddr != @clients4 drop",
        f"        {reached} ip6 saddr != @clients6 drop",
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def loaded(run: Run) -> bool:
    """Tell whether the node's kernel has the table."""
    return run(["nft", "list", "table", "inet", TABLE])[0] == 0


def expect_nft(run: Run) -> None:
    """Raise FilterError if nftables does not work either."""
    status, output, error = run(["nft", "list", "tables"])
    if status == NOT_FOUND:
        raise FilterError(f"{_NOTHING}, and there is no nft. Install the package nftables, or {_ALONE}")
    if status:
        said = " ".join((error or output).split())[-200:]
        raise FilterError(f"{_NOTHING}, nor may it use nftables ({said}). Give it CAP_NET_ADMIN, or {_ALONE}")


def load(run: Run, path: str) -> None:
    """Load the rules of a file. Raises FilterError."""
    status, output, error = run(["nft", "-f", path])
    if status:
        raise FilterError(f"nft cannot load /{RULES}: {(error or output).strip()[-300:]}")
