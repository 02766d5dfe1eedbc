"""Users of a node are reported, except Ansible, the service and the login screen."""

from __future__ import annotations

import os
import pwd
import struct
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.modules.node_activity import activity
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

OWN = 500
NOBODY = pwd.getpwnam("nobody")
HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


class Node:
    """Processes, logins and connections of a node."""

    def __init__(self, directory: Path) -> None:
        self.root, self.commands = directory / "root", directory / "commands"
        self.commands.mkdir()
        (self.root / "run").mkdir(parents=True)
        self.loginctl("")
        self.process(1, 0, name="systemd")
        self.process(400, 1, name="sshd")
        self.process(450, 400, name="sshd")
        self.process(OWN, 450, name="python3")
        (self.root / f"proc/{OWN}/cgroup").write_text("0::/user.slice/user-0.slice/session-7.scope\n")

    def process(self, number: int, parent: int, name: str = "program", uid: int = 0, opens: str = "") -> None:
        directory = self.root / "proc" / str(number)
        (directory / "fd").mkdir(parents=True)
        (directory / "status").write_text(f"Name:\t{name}\nPPid:\t{parent}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        (directory / "fd/3").symlink_to(opens or "/dev/null")

    def login(self, user: str, line: str, host: str, process: int, kind: int = 7) -> None:
        entry = struct.pack("=hxxi32s4s32s256s52x", kind, process, line.encode(), b"", user.encode(), host.encode())
        assert len(entry) == 384
        with (self.root / "run/utmp").open("ab") as file:
            file.write(entry)

    def loginctl(self, sessions: str, **properties: str) -> None:
        shown = "".join(f"{name}={value}\n" for name, value in properties.items())
        command = self.commands / "loginctl"
        command.write_text(f'#!/bin/sh\ncase $1 in list-sessions) echo "{sessions}";; *) echo "{shown}";; esac\n')
        command.chmod(0o755)

    def tcp(self, name: str, *rows: str) -> None:
        (self.root / "proc/net").mkdir(exist_ok=True)
        lines = [f"   {index}: {row} 00000000:00000000 00:00000000 00000000 0 0 1\n" for index, row in enumerate(rows)]
        (self.root / "proc/net" / name).write_text(HEAD + "".join(lines))

    def busy(self, ports: list[int] | None = None) -> list[str]:
        return activity(self.root, OWN, ports or [], "nobody")


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setenv("PATH", f"{tmp_path}/commands:{os.environ['PATH']}")
    return Node(tmp_path)


def test_nobody_is_there(node: Node) -> None:
    assert node.busy([8000]) == []


def test_people_at_terminals_are_named(node: Node) -> None:
    node.process(700, 1)
    node.process(701, 1)
    node.login("anna", "pts/1", "10.0.0.5", 700)
    node.login("bert", "tty1", "", 701)
    assert node.busy() == ["anna is logged in at pts/1 from 10.0.0.5", "bert is logged in at tty1"]


def test_ansible_those_who_left_and_entries_of_other_kinds_are_nobody(node: Node) -> None:
    node.login("root", "pts/0", "10.0.0.1", 450)  # what Ansible came through
    node.login("anna", "pts/1", "10.0.0.5", 999)  # a process that is not there
    node.process(702, 1)
    node.login("LOGIN", "tty1", "", 702, kind=6)
    node.login("reboot", "~", "6.1.0", 702, kind=2)
    node.login("x", "~", "", 702)
    assert node.busy() == []


def test_sessions_of_systemd_count_once(node: Node) -> None:
    node.process(700, 1)
    node.login("anna", "pts/1", "10.0.0.5", 700)
    session = {"Name": "anna", "TTY": "pts/1", "RemoteHost": "10.0.0.5", "Class": "user", "Leader": "700"}
    node.loginctl("12 1000 anna seat0 pts/1", State="active", **session)
    assert node.busy() == ["anna is logged in at pts/1 from 10.0.0.5"]
    (node.root / "run/utmp").unlink()
    assert node.busy() == ["anna is logged in at pts/1 from 10.0.0.5"]


@pytest.mark.parametrize(
    ("session", "changes"),
    [
        ("7", {}),  # Ansible's own
        ("12", {"TTY": ""}),  # without a terminal: a copy of files, a connection of Ansible's
        ("12", {"Class": "greeter"}),
        ("12", {"State": "closing"}),
        ("12", {"Leader": "450"}),
    ],
)
def test_sessions_without_a_person_do_not_count(node: Node, session: str, changes: dict[str, str]) -> None:
    node.process(700, 1)
    properties = {"Name": "anna", "TTY": "tty2", "Class": "user", "State": "active", "Leader": "700"}
    node.loginctl(session, **{**properties, **changes})
    assert node.busy() == []


def test_programs_with_a_gpu_are_named(node: Node) -> None:
    node.process(800, 1, name="python3", uid=0, opens="/dev/dri/renderD128")
    node.process(801, 1, name="xpuserve", uid=NOBODY.pw_uid, opens="/dev/dri/renderD128")
    node.process(802, 1, name="Xorg", opens="/dev/dri/renderD128")
    node.process(803, 1, name="editor", opens="/dev/dri/card0")
    node.process(804, 1, name="ffmpeg", uid=54321, opens="/dev/dri/renderD129")
    assert node.busy() == [
        "python3 (process 800) of root uses /dev/dri/renderD128",
        "ffmpeg (process 804) of user 54321 uses /dev/dri/renderD129",
    ]


def test_clients_of_the_service_are_named(node: Node) -> None:
    node.tcp(
        "tcp",
        "0100007F:1F40 0500000A:C350 01",
        "0100007F:1F40 0500000A:C351 01",
        "00000000:1F40 00000000:0000 0A",  # it listens
        "0100007F:1F40 0600000A:C350 06",  # that one has left
        "0100007F:0016 0700000A:C350 01",
        "0500000A:C350 0100007F:1F40 01",  # the client's own end
    )
    node.tcp(
        "tcp6",
        "0000000000000000FFFF00000100007F:1F41 0000000000000000FFFF00000800000A:C350 01",
        "00000000000000000000000001000000:1F41 00000000000000000000000001000000:C350 01",
    )
    assert node.busy([8000, 8001]) == [
        "10.0.0.5 is connected to port 8000 2 times",
        "10.0.0.8 is connected to port 8001",
        "::1 is connected to port 8001",
    ]


def test_the_module_reads_only() -> None:
    result = run_module("node_activity", check=True, ports=[1])
    assert not result["changed"] and isinstance(result["busy"], list)
