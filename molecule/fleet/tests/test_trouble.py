"""Nodes that fail under load: they are out at once, and no client still waiting for its first byte sees an error."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable

from default.tests.conftest import wait_for
from fleet.tests.conftest import Outages, asking, on, statuses, wait_until_all_serve
from rig import fleet

PROCESS = "systemctl show --property MainPID --value xpuserve@0"
#: Answers with something other than HTTP, on the service's port.
NONSENSE = (
    "import socketserver;h=type('H',(socketserver.StreamRequestHandler,),{'handle':lambda s:s.wfile.write(b'?\\n')});"
    "socketserver.TCPServer.allow_reuse_address=True;socketserver.ThreadingTCPServer(('',8000),h).serve_forever()"
)


def survives(what: str, name: str, harm: Callable[[], None], mend: Callable[[], None]) -> None:
    """Harm a node, and repair it; clients still waiting for their first byte notice nothing."""
    wait_until_all_serve()
    with asking() as clients:
        outages = Outages()
        harm()
        try:
            wait_for(lambda: not statuses()[name].startswith("UP"))
            clients.wait(8)
        finally:
            mend()
    print(f"{what}: out after {outages.out(name):.1f} s; {clients}")
    assert clients.failed == []


def test_a_killed_service() -> None:
    survives("kill -9 of a service", "n1", lambda: run("n1", f"kill -KILL $({PROCESS})"), lambda: None)


def test_a_stopped_engine() -> None:
    stop = f"kill -STOP $(pgrep -P $({PROCESS}))"
    survives("SIGSTOP of an engine", "n2", lambda: run("n2", stop), lambda: None)


def test_a_node_that_answers_nonsense() -> None:
    unit = "systemd-run --unit=nonsense --collect python3 -c"
    survives(
        "nonsense",
        "n3",
        lambda: run("n3", f'systemctl stop xpuserve@0 && {unit} "{NONSENSE}"'),
        lambda: run("n3", "systemctl stop nonsense; systemctl start xpuserve@0"),
    )


def test_a_cable_that_is_pulled() -> None:
    survives("network gone", "n2", lambda: cable("n2", "down"), lambda: cable("n2", "up"))


def run(name: str, command: str) -> None:
    """Run a command on a node."""
    on(name).check_output(command)


def cable(name: str, state: str) -> None:
    """Set a node's link up or down, on this machine's side."""
    nodes = fleet.find("fleet")
    link = f"{nodes.bridge}n{[node.name for node in nodes.containers].index(name)}"
    subprocess.run(["ip", "link", "set", link, state], check=True)


def test_a_power_cut() -> None:
    """Runs last: the node is gone for good, and closes none of its connections."""
    (node,) = (each for each in fleet.find("fleet").nodes if each.name == "n3")

    def cut() -> None:
        cable("n3", "down")
        for group in node.cgroups():
            for path in group.rglob("cgroup.procs"):
                for process in path.read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(process), signal.SIGKILL)

    survives("power cut", "n3", cut, lambda: None)
