"""What the gateway costs by itself, and how it spreads work (python3 -m tests.bench.door).

HAProxy with the role's own template stands before instances that are one process here, which answers at once, streams,
or works as long as a prompt is. Direct requests and those through the gateway take turns in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "collections")]

from tests.bench.fleet import this_machine  # noqa: E402
from tests.gateway.door import free_port, render  # noqa: E402

HEADERS = b"Content-Type: application/json\r\n"
#: Requests of a round and rounds, clients at a time, and concurrent streams.
REQUESTS, ROUNDS, CLIENTS, STREAMS = 500, 5, 16, 2000
#: Seconds per token of a prompt, and concurrent requests of an instance.
TOKEN, AT_A_TIME = 0.0005, 2
#: A way to balance requests, and the replaced part of the template.
WAYS = {"the role's": "", "roundrobin": "balance roundrobin", "leastconn": "balance leastconn"}


class Instance:
    """One instance: counts the tokens of its requests."""

    def __init__(self) -> None:
        self.tokens = 0
        self.waiting = 0
        self.may_end = asyncio.Event()
        self._turn = asyncio.Semaphore(AT_A_TIME)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request of a connection."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")), b":0")
            body = await reader.readexactly(int(length.partition(b":")[2]))
            asked: dict[str, Any] = json.loads(body or b"{}")
            if asked.get("stream"):
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\ndata: 1\n\n"
                )
                await writer.drain()
                await self.may_end.wait()
                writer.write(b"data: [DONE]\n\n")
            else:
                await self._work(int(asked.get("tokens", 0)))
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # it left
        finally:
            writer.close()

    async def _work(self, tokens: int) -> None:
        if not tokens:
            return
        self.tokens += tokens
        self.waiting += 1
        async with self._turn:
            self.waiting -= 1
            await asyncio.sleep(tokens * TOKEN)

    async def tell(self, _reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Report the load to the gateway, as the service's agent does."""
        share = 100 if not self.waiting else 50 if self.waiting <= AT_A_TIME else 25
        writer.write(f"ready up {share}%\n".encode())
        writer.close()


@asynccontextmanager
async def gateway(instances: list[Instance], way: str = "") -> AsyncIterator[tuple[int, int]]:
    """Run a gateway before instances: its port, and that of the first instance."""
    servers = [
        await asyncio.start_server(serve, "127.0.0.1", 0, backlog=4096)
        for each in instances
        for serve in (each.answer, each.tell)
    ]
    ports = [server.sockets[0].getsockname()[1] for server in servers]
    try:
        async with proxied(list(zip(ports[::2], ports[1::2])), "m", 4096, way) as port:
            while (await ask(port, {}))[0] != 200:
                await asyncio.sleep(0.1)
            yield port, ports[0]
    finally:
        for server in servers:
            server.close()


@asynccontextmanager
async def proxied(instances: Sequence[tuple[int, int]], model: str, requests: int, way: str = "") -> AsyncIterator[int]:
    """Run HAProxy before instances with these ports and agents' ports, which take so many requests; its port."""
    known = {
        f"n{number}": [
            {"name": f"n{number}-0", "address": "127.0.0.1", "port": port, "agent_port": agent}
            | {"model": model, "requests": requests}
        ]
        for number, (port, agent) in enumerate(instances)
    }
    with tempfile.TemporaryDirectory(prefix="xpu-") as place:
        port = free_port()
        settings = {"gateway_port": port, "gateway_metrics_port": free_port(), "gateway_tls": False, "instances": known}
        render(Path(place), {**settings, "gateway_api_keys": [], "gateway_queue_requests": 4096})
        configuration = Path(place) / "haproxy.cfg"
        if way:
            kept = [line for line in configuration.read_text().splitlines() if "hash-" not in line]
            text = "\n".join(f"    {way}" if line.strip().startswith("balance ") else line for line in kept)
            configuration.write_text(f"{text}\n")
        (Path(place) / "servers").touch()
        nothing = asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(
            "haproxy", "-db", "-f", str(configuration), stdout=nothing, stderr=nothing
        )
        try:
            yield port
        finally:
            process.terminate()
            await process.wait()


async def ask(port: int, body: dict[str, Any]) -> tuple[int, bytes]:
    """Send one request; its status and body, 0 if there is none."""
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0, b""
    text = json.dumps({"model": "m", **body}).encode()
    length = f"Content-Length: {len(text)}\r\nHost: a\r\nConnection: close\r\n\r\n".encode()
    writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n" + HEADERS + length + text)
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1] or 0) if answer else 0, answer


async def pooled(number: int, at_a_time: int, work: Callable[[int], Awaitable[None]]) -> None:
    """Run tasks, so many at a time."""
    numbers = iter(range(number))

    async def one() -> None:
        for each in numbers:
            await work(each)

    await asyncio.gather(*(one() for _ in range(at_a_time)))


async def latencies(port: int) -> tuple[float, list[float]]:
    """Requests a second, and the seconds of each, with a server that answers at once."""
    took: list[float] = []

    async def one(_number: int) -> None:
        began = time.perf_counter()
        status, _answer = await ask(port, {})
        assert status == 200
        took.append(time.perf_counter() - began)

    began = time.perf_counter()
    await pooled(REQUESTS, CLIENTS, one)
    return REQUESTS / (time.perf_counter() - began), took


async def cost() -> list[str]:
    """The lines of the table of costs."""
    rows = []
    async with gateway([Instance()]) as ports:
        measured: dict[str, list[tuple[float, list[float]]]] = {"direct": [], "through the gateway": []}
        for _round in range(ROUNDS):
            for way, port in zip(measured, reversed(ports)):
                measured[way].append(await latencies(port))
        for way, rounds in measured.items():
            rate = statistics.median(rate for rate, _took in rounds)
            cuts = statistics.quantiles([1000 * each for _rate, took in rounds for each in took], n=100)
            rows.append(f"| {way} | {rate:.0f} | {cuts[49]:.1f} | {cuts[98]:.1f} |")
    return ["| | requests/s | p50 ms | p99 ms |", "|---|--:|--:|--:|", *rows]


async def streams() -> str:
    """Open many streams at once, and read them to their end."""
    instance = Instance()
    async with gateway([instance]) as (port, _direct):
        begun, beginning = asyncio.Semaphore(0), asyncio.Semaphore(CLIENTS)
        whole = 0

        async def one(_number: int) -> None:
            nonlocal whole
            async with beginning:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                text = json.dumps({"model": "m", "stream": True}).encode()
                head = f"Content-Length: {len(text)}\r\nHost: a\r\n\r\n".encode()
                writer.write(b"POST /v1/chat/completions HTTP/1.1\r\n" + HEADERS + head + text)
                await reader.readuntil(b"data: 1\n\n")
            begun.release()
            rest = await reader.read()
            whole += b"[DONE]" in rest
            writer.close()

        async def end() -> None:
            for _ in range(STREAMS):
                await begun.acquire()
            instance.may_end.set()

        await asyncio.gather(end(), pooled(STREAMS, STREAMS, one))
    return f"{STREAMS:,} streams were open at once through the gateway; {whole:,} came to their end."


async def balance(way: str) -> str:
    """Send short and long prompts of many conversations to four instances; the line of the table."""
    instances, took = [Instance() for _ in range(4)], list[float]()
    choose = random.Random(1)  # noqa: S311 - the same for each way
    prompts = [(number % 60, 2000 if choose.random() < 0.2 else 100) for number in range(400)]
    async with gateway(instances, WAYS[way]) as (port, _direct):

        async def one(number: int) -> None:
            conversation, tokens = prompts[number]
            began = time.perf_counter()
            status, _answer = await ask(port, {"user": f"c{conversation}", "tokens": tokens})
            assert status == 200
            took.append(time.perf_counter() - began)

        await pooled(len(prompts), CLIENTS, one)
    given = [each.tokens for each in instances]
    spread = max(given) / statistics.mean(given)
    return f"| {way} | {spread:.2f} | {statistics.median(took):.2f} | {statistics.quantiles(took, n=100)[98]:.2f} |"


async def report() -> None:
    """Print all of it."""
    print("# What the gateway costs, and how it spreads work\n")
    print(f"`python3 -m tests.bench.door` on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {this_machine()}.\n")
    print("\n".join(await cost()), end="\n\n")
    print(await streams(), end="\n\n")
    print("| requests spread by | most tokens of an instance / mean | p50 s | p99 s |\n|---|--:|--:|--:|")
    for way in WAYS:
        print(await balance(way))


def main() -> None:
    """Run the benchmark."""
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    asyncio.run(report())


if __name__ == "__main__":
    main()
