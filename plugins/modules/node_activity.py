#!/usr/bin/python
"""Ansible module: who uses this node?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_activity
short_description: Tell who uses a node, before it is rebooted
version_added: "1.0.0"
description:
  - Looks for people who are logged in at a terminal, for programs that have a GPU open, and for clients of the service.
  - Ansible's own connection does not count, nor do the service itself and the login screen.
author: The xpu.fleet developers (@xpu-fleet)
options:
  ports:
    description: TCP ports of the service.
    type: list
    elements: int
    default: []
  user:
    description: The user that the service runs as.
    type: str
    default: xpuserve
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Wait until nobody uses the node
  xpu.fleet.node_activity:
    ports: [8000]
  register: activity
  until: activity.busy | length == 0
"""

RETURN = r"""
busy:
  description: Who uses the node, a sentence each; empty where nobody does.
  type: list
  elements: str
  returned: success
"""

import os  # noqa: E402
import pwd  # noqa: E402
import re  # noqa: E402
import socket  # noqa: E402
import struct  # noqa: E402
from collections.abc import Iterator  # noqa: E402
from dataclasses import dataclass  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import (  # noqa: E402
    result_of,
)

ROOT = Path("/")
#: Fields: type, process, line, id, user, host, and unused ones; as glibc writes them on 64-bit machines.
_UTMP = struct.Struct("=hxxi32s4s32s256s52x")
_USER_PROCESS = 7
_ESTABLISHED = "01"
#: Users and programs of the login screen, which always has the GPU open.
_GREETERS = frozenset(("gdm", "Debian-gdm", "lightdm", "sddm", "greeter"))
_DISPLAY_SERVERS = frozenset(("Xorg", "X"))


@dataclass(frozen=True)
class Login:
    """Somebody at a terminal."""

    user: str
    terminal: str
    host: str
    process: int
    session: str = ""

    def __str__(self) -> str:
        return f"{self.user} is logged in at {self.terminal}" + (f" from {self.host}" if self.host else "")


class Processes:
    """The processes of a node."""

    def __init__(self, root: Path, own: int) -> None:
        self._proc = root / "proc"
        self.ancestors = set(self._ancestors(own))
        cgroup = self._read(own, "cgroup")
        match = re.search(r"/session-(\w+)\.scope", cgroup)
        self.own_session = match[1] if match else ""

    def _read(self, process: int, name: str) -> str:
        try:
            return (self._proc / str(process) / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _status(self, process: int, key: str) -> str:
        match = re.search(rf"^{key}:\s*(.*)$", self._read(process, "status"), re.MULTILINE)
        return match[1] if match else ""

    def _ancestors(self, process: int) -> Iterator[int]:
        while process > 1:
            yield process
            process = int(self._status(process, "PPid") or 0)

    def exists(self, process: int) -> bool:
        """Tell whether a process exists; a crashed login leaves its entry behind."""
        return (self._proc / str(process)).is_dir()

    def with_gpus(self, service: str) -> list[str]:
        """Return a sentence for each process with an open GPU, except the service and the login screen."""
        found = []
        for directory in sorted(
            (path for path in self._proc.iterdir() if path.name.isdecimal()), key=lambda p: int(p.name)
        ):
            devices = _open_gpus(directory)
            process = int(directory.name)
            if not devices or process in self.ancestors:
                continue
            user = _user_name((self._status(process, "Uid").split() or ["0"])[0])
            program = self._status(process, "Name")
            if user != service and user not in _GREETERS and program not in _DISPLAY_SERVERS:
                found.append(f"{program or 'a program'} (process {process}) of {user} uses {', '.join(devices)}")
        return found


def _open_gpus(process: Path) -> list[str]:
    try:
        targets = {str(link.readlink()) for link in (process / "fd").iterdir()}
    except OSError:
        return []
    return sorted(target for target in targets if re.match(r"/dev/dri/renderD\d+$", target))


def _user_name(number: str) -> str:
    try:
        return pwd.getpwuid(int(number)).pw_name
    except (KeyError, ValueError):
        return f"user {number}"


def logins(root: Path) -> list[Login]:
    """Return who is logged in at a terminal, from the list of logins and from systemd."""
    found = {login.terminal: login for login in _logind()}
    found.update({login.terminal: login for login in _utmp(root / "run/utmp") if login.terminal not in found})
    return list(found.values())


def _utmp(path: Path) -> Iterator[Login]:
    try:
        content = path.read_bytes()
    except OSError:
        return
    for offset in range(0, len(content) - _UTMP.size + 1, _UTMP.size):
        kind, process, line, _ignored, user, host = _UTMP.unpack_from(content, offset)
        terminal = _string(line)
        if kind == _USER_PROCESS and re.match(r"(pts/|tty)", terminal):
            yield Login(_string(user), terminal, _string(host), process)


def _string(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "replace")


def _logind() -> Iterator[Login]:
    for line in result_of(["loginctl", "list-sessions", "--no-legend"]).output.splitlines():
        session = line.split()[0] if line.split() else ""
        output = result_of(["loginctl", "show-session", session]).output
        known = dict(row.split("=", 1) for row in output.splitlines() if "=" in row)
        if known.get("TTY") and known.get("Class") == "user" and known.get("State") != "closing":
            host = known.get("RemoteHost", "")
            leader = known.get("Leader", "0")
            yield Login(known.get("Name", ""), known["TTY"], host, int(leader) if leader.isdecimal() else 0, session)


def clients(root: Path, ports: list[int]) -> list[str]:
    """Return a sentence for each address connected to a port."""
    connected: dict[tuple[str, int], int] = {}
    for name in ("tcp", "tcp6"):
        try:
            rows = (root / "proc/net" / name).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for row in rows:
            local, remote, state = row.split()[1:4]
            port = int(local.rpartition(":")[2], 16)
            if state == _ESTABLISHED and port in ports:
                key = (_address(remote.rpartition(":")[0]), port)
                connected[key] = connected.get(key, 0) + 1
    return [
        f"{address} is connected to port {port}" + (f" {count} times" if count > 1 else "")
        for (address, port), count in sorted(connected.items())
    ]


def _address(text: str) -> str:
    """Return an address of /proc/net: words of 32 bits in the machine's byte order."""
    packed = b"".join(struct.pack("=I", int(text[at : at + 8], 16)) for at in range(0, len(text), 8))
    if len(packed) == 4:
        return socket.inet_ntop(socket.AF_INET, packed)
    return socket.inet_ntop(socket.AF_INET6, packed).removeprefix("::ffff:")


def activity(root: Path, own: int, ports: list[int], user: str) -> list[str]:
    """Return who uses the node, a sentence each."""
    processes = Processes(root, own)
    people = [
        str(login)
        for login in logins(root)
        if (not login.process or processes.exists(login.process))
        and login.process not in processes.ancestors
        and not (login.session and login.session == processes.own_session)
    ]
    return [*people, *processes.with_gpus(user), *clients(root, ports)]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "user": {"type": "str", "default": "xpuserve"},
        },
        supports_check_mode=True,
    )
    busy = activity(ROOT, os.getpid(), module.params["ports"], module.params["user"])
    module.exit_json(changed=False, busy=busy)


if __name__ == "__main__":
    main()
