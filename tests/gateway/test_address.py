"""Two gateways share an address: keepalived and HAProxy with the role's settings, each pair in a network namespace.

A third namespace has the network's bridge, and the client.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.gateway_address import peers

from tests.gateway.door import HAPROXY, ROOT, render

ADDRESS, CLIENT = "192.0.2.5/24", "192.0.2.100/24"
OWN = {"door1": "192.0.2.1", "door2": "192.0.2.2"}
KEEPALIVED = shutil.which("keepalived", path=f"{os.environ['PATH']}:/usr/sbin")
ASK = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=1).status)"


def until(wanted: Callable[[], bool], log: list[str] | None = None) -> None:
    """Wait for something that happens outside."""
    waited, end = threading.Event(), time.monotonic() + 60
    while not wanted():
        assert time.monotonic() < end, "".join(log or [])
        waited.wait(0.1)


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Gateway:
    """A network namespace with HAProxy and keepalived."""

    def __init__(self, name: str, prefix: str, place: Path) -> None:
        self.name, self.place, self.where = name, place, f"{prefix}-{name}"
        self.door: subprocess.Popen[str] | None = None
        self.log: list[str] = []

    def settings(self) -> None:
        """Write what the role writes."""
        addresses = {name: {"ansible_host": address} for name, address in OWN.items()}
        asked = {"address": ADDRESS, "interface": "wire", "own_address": OWN[self.name], "host": "0.0.0.0"}  # noqa: S104
        links = [{"ifname": "wire", "addr_info": [{"local": OWN[self.name]}]}]
        instance = {"name": "a-0", "address": "127.0.0.1", "port": 8000, "agent_port": 0, "model": "m", "requests": 1}
        values: dict[str, Any] = {
            "inventory_hostname": self.name,
            "instances": {"a": [instance]},
            "gateway_host": "0.0.0.0",  # noqa: S104 - in a namespace of its own
            "gateway_tls": False,
            "gateway_api_keys": [],
            "gateway_address": ADDRESS,
            "gateway_address_interface": "wire",
            "__gateway_user": "nobody",
            "__gateway_health_url": "http://127.0.0.1:8443/health",
            "__gateway_peers": peers(self.name, list(OWN), addresses, asked, links),
        }
        render(self.place, values, "keepalived.conf")
        (self.place / "servers").touch()
        shutil.copy(ROOT / "roles/gateway/files/answers.py", self.place)

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program in the namespace."""
        return subprocess.Popen(
            ["ip", "netns", "exec", self.where, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def open(self) -> None:
        """Start HAProxy, without a master: one process to kill."""
        self.door = self.start(HAPROXY, "-db", "-f", str(self.place / "haproxy.cfg"))

    def kill(self) -> None:
        """Kill HAProxy."""
        assert self.door
        self.door.kill()
        self.door.wait()

    @property
    def has_address(self) -> bool:
        return f" {ADDRESS} " in ip("-n", self.where, "address", "show", "dev", "wire")

    @property
    def heard(self) -> int:
        """Packets from the others: one a second from the gateway with the address, and ten when it takes it."""
        found = json.loads(ip("-n", self.where, "-json", "-stats", "link", "show", "wire"))
        packets: int = found[0]["stats64"]["rx"]["packets"]
        return packets


@pytest.fixture
def gateways() -> Iterator[list[Gateway]]:
    """Two gateways that run, the first of which has the address."""
    if not KEEPALIVED:
        pytest.skip("keepalived is not installed here (make unit installs it)")
    prefix = f"xpu-gw-{os.getpid()}"
    net = f"{prefix}-net"
    # Where no other user may write: keepalived runs no script elsewhere.
    with tempfile.TemporaryDirectory(prefix="xpu-", dir="/run") as folder:
        Path(folder).chmod(0o755)
        both = [Gateway(name, prefix, Path(folder) / name) for name in OWN]
        running: list[subprocess.Popen[str]] = []
        try:
            ip("netns", "add", net)
            ip("-n", net, "link", "add", "bridge", "type", "bridge")
            ip("-n", net, "address", "add", CLIENT, "dev", "bridge")
            ip("-n", net, "link", "set", "bridge", "up")
            for gateway in both:
                gateway.place.mkdir(mode=0o755)
                ip("netns", "add", gateway.where)
                ip("-n", gateway.where, "link", "set", "lo", "up")
                ip("-n", net, "link", "add", gateway.name, "type", "veth", "peer", "wire", "netns", gateway.where)
                ip("-n", net, "link", "set", gateway.name, "master", "bridge", "up")
                ip("-n", gateway.where, "address", "add", f"{OWN[gateway.name]}/24", "dev", "wire")
                ip("-n", gateway.where, "link", "set", "wire", "up")
                gateway.settings()
                gateway.open()
            for gateway in both:
                pids = [f"--{name}={gateway.place}/{name}" for name in ("pid", "vrrp_pid")]
                settings = f"--use-file={gateway.place}/keepalived.conf"
                running.append(
                    gateway.start(KEEPALIVED, "--dont-fork", "--vrrp", "--log-console", "--no-syslog", settings, *pids)
                )
                threading.Thread(target=_read, args=(running[-1], gateway.log), daemon=True).start()
                # Whoever is there first has it.
                until(lambda: both[0].has_address and _answers(net), both[0].log)
            until(lambda: _is_backup(both[1]), both[1].log)
            yield both
        finally:
            for process in (*running, *(gateway.door for gateway in both if gateway.door)):
                process.terminate()
                process.wait(30)
            for where in (net, *(gateway.where for gateway in both)):
                subprocess.run(["ip", "netns", "delete", where], check=False, capture_output=True)


def _read(process: subprocess.Popen[str], log: list[str]) -> None:
    assert process.stdout
    log.extend(iter(process.stdout.readline, ""))


def _is_backup(gateway: Gateway) -> bool:
    return any("Entering BACKUP STATE" in line for line in gateway.log)


def _answers(net: str) -> bool:
    url = f"http://{ADDRESS.partition('/')[0]}:8443/health"
    command = ["ip", "netns", "exec", net, sys.executable, "-c", ASK, url]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout == "200\n"


def test_the_address_follows_the_gateway_that_answers(gateways: list[Gateway]) -> None:
    first, second = gateways
    net = first.where.replace(first.name, "net")
    assert not second.has_address
    first.kill()
    until(lambda: second.has_address and not first.has_address and _answers(net))
    # One that comes back leaves the address where answers are under way.
    first.log.clear()
    first.open()
    until(lambda: _is_backup(first), first.log)
    before = first.heard
    until(lambda: first.heard >= before + 20, first.log)
    assert second.has_address and not first.has_address
    second.kill()
    until(lambda: first.has_address and not second.has_address and _answers(net))
    # A cable that is pulled.
    second.log.clear()
    second.open()
    until(lambda: _is_backup(second), second.log)
    ip("-n", first.where, "link", "set", "wire", "down")
    until(lambda: second.has_address and _answers(net))
