"""What 10, 100 and 1,000 nodes cost a gateway and a rolling change (python3 -m tests.bench.fleet_size).

A gateway is HAProxy with the role's own template, before so many instances that are all one small server here: measured
are its memory, and the processor time that its looks at health and load take. A rolling change is computed with the
function that puts nodes into batches.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections")]

from ansible_collections.xpu.fleet.plugins.module_utils.upgrade import plan  # noqa: E402

from tests.bench.fleet import this_machine  # noqa: E402
from tests.gateway.door import free_port, render  # noqa: E402

#: A gateway's processor time is measured for so many seconds.
SECONDS = 20.0
#: Minutes of a node's change, and the default sizes of batches.
MINUTES = 10
SIZES = (1, "10%", "25%")
HEAD = (
    "nodes", "memory of the gateway", "its CPU for checks", "checks a second", "batches", "hours of a change",
    "most nodes out", "renewals of the lock",
)  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """Cost of a fleet of one size."""

    nodes: int
    megabytes: float
    cpu: float
    batches: int
    most: int

    def row(self) -> list[str]:
        """The line of the table."""
        return [
            f"{self.nodes:,}", f"{self.megabytes:.0f} MB", f"{100 * self.cpu:.1f} %", f"{self.nodes:,}",
            str(self.batches), f"{self.batches * MINUTES / 60:.1f}", str(self.most), str(self.batches),
        ]  # fmt: skip


@contextmanager
def instance() -> Iterator[tuple[int, int]]:
    """A server that is ready, and its agent: their ports."""
    loop = asyncio.new_event_loop()

    async def ready(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def agent(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"ready up 100%\n")
        writer.close()

    async def begin() -> list[asyncio.Server]:
        return [await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024) for answer in (ready, agent)]

    servers = loop.run_until_complete(begin())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        first, second = (server.sockets[0].getsockname()[1] for server in servers)
        yield first, second
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def gateway(place: Path, nodes: int, ports: tuple[int, int]) -> subprocess.Popen[bytes]:
    """Start HAProxy for so many nodes."""
    instances = {
        f"n{number}": [
            {"name": f"n{number}-0", "address": "127.0.0.1", "port": ports[0], "agent_port": ports[1]}
            | {"model": "m", "requests": 16}
        ]
        for number in range(nodes)
    }
    settings = {"gateway_port": free_port(), "gateway_metrics_port": free_port(), "gateway_tls": False}
    render(place, {**settings, "gateway_api_keys": [], "instances": instances})
    (place / "servers").touch()
    command = ["haproxy", "-db", "-f", str(place / "haproxy.cfg")]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def used(process: int) -> tuple[float, float]:
    """Processor seconds and megabytes of a process."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100, int(fields[21]) * 4096 / 1e6


def measure(nodes: int, ports: tuple[int, int]) -> Cost:
    """Return the cost of so many nodes."""
    with tempfile.TemporaryDirectory(prefix="xpu-") as place:
        process = gateway(Path(place), nodes, ports)
        try:
            time.sleep(SECONDS / 2)  # until it has checked each once
            before, began = used(process.pid)[0], time.monotonic()
            time.sleep(SECONDS)
            after, megabytes = used(process.pid)
            cpu = (after - before) / (time.monotonic() - began)
        finally:
            process.terminate()
            process.wait()
    names = [f"n{number}" for number in range(nodes)]
    serial = plan(names, {name: {} for name in names}, SIZES, {}, {})["serial"]
    return Cost(nodes, megabytes, cpu, len(serial), max(serial))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", default="10,100,1000", help="numbers of nodes")
    options = parser.parse_args()
    machine = this_machine()
    with instance() as ports:
        costs = [measure(int(nodes), ports) for nodes in options.nodes.split(",")]
    print(f"`python3 -m tests.bench.fleet_size` on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {machine}.\n")
    print(f"| {' | '.join(HEAD)} |\n|{'--:|' * len(HEAD)}")
    for cost in costs:
        print(f"| {' | '.join(cost.row())} |")


if __name__ == "__main__":
    main()
