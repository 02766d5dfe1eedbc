"""Nodes that fail under load: out within a moment, and no client that has not got a byte yet sees an error."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable

from default.tests.conftest import wait_for
from fleet.tests.conftest import asking, on, since, statuses, wait_until_all_serve
from rig import fleet

#: Answers with what is no HTTP, where the service would listen.
NONSENSE = (
    "import socketserver;h=type('H',(socketserver.StreamRequestHandler,),{'handle':lambda s:s.wfile.write(b'?\\n')});"
    "socketserver.TCPServer.allow_reuse_address=True;socketserver.ThreadingTCPServer(('',8000),h).serve_forever()"
)


def survives(what: str, name: str, harm: Callable[[], None], mend: Callable[[], None]) -> None:
    """Do something to a node, and undo it; those who had no byte of an answer yet notice nothing."""
    wait_until_all_serve()
    with asking() as clients:
        began = time.monotonic()
        harm()
        try:
            wait_for(lambda: not statuses()[name].startswith("UP"))
            took = since(began)
            clients.wait(8)
        finally:
            mend()
    print(f"{what}: out after {took}, {clients.whole} answers, {len(clients.failed)} failed, {len(clients.cut)} cut")
    assert clients.failed == []


def test_a_killed_service() -> None:
    survives("kill -9 of a service", "n1", lambda: run("n1", "pkill -KILL -f 'serve --config'"), lambda: None)


def test_a_stopped_engine() -> None:
    process = "systemctl show --property MainPID --value xpuserve@0"
    stop = f"kill -STOP $(pgrep -P $({process}))"
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
    nodes = fleet.find("fleet")
    link = f"{nodes.bridge}n{[node.name for node in nodes.nodes].index('n2')}"
    survives("network gone", "n2", lambda: ip(link, "down"), lambda: ip(link, "up"))


def run(name: str, command: str) -> None:
    """Run a command on a node."""
    on(name).check_output(command)


def ip(link: str, state: str) -> None:
    """Set a link up or down."""
    subprocess.run(["ip", "link", "set", link, state], check=True)


def test_a_power_cut() -> None:
    """The last: the node is gone for good."""
    (node,) = (each for each in fleet.find("fleet").nodes if each.name == "n3")

    def cut() -> None:
        for group in node.cgroups():
            for path in group.rglob("cgroup.procs"):
                for process in path.read_text().split():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(process), signal.SIGKILL)

    survives("power cut", "n3", cut, lambda: None)
