"""What a conversation's way to one instance is worth (python3 -m tests.bench.prefix).

HAProxy with the role's own template stands before the service with engine bigdl and a real small model, which keeps
the caches of recent conversations. Clients lead conversations, each of which repeats all that was said; every way to
spread their requests gets conversations of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from rig import cache
from xpuserve.client import APIClient

from tests.bench import process, servers
from tests.bench.door import WAYS, pooled, proxied
from tests.bench.fleet import this_machine
from tests.load.client import LoadClient

INSTANCES, CONVERSATIONS, TURNS, CLIENTS = 3, 12, 4, 4
#: Words of a conversation's beginning, and tokens of an answer.
WORDS, ANSWER_TOKENS = 200, 16
#: Concurrent requests of an instance.
AT_A_TIME = 8


class Client:
    """Leads conversations through a gateway."""

    def __init__(self, port: int, seed: str) -> None:
        self._client = APIClient(f"http://127.0.0.1:{port}")
        self._seed = seed
        self.first_tokens: list[float] = []  # in seconds, of all turns but each conversation's first

    async def lead(self, number: int) -> None:
        """Lead one conversation to its end."""
        choose = random.Random(f"{self._seed} {number}")  # noqa: S311 - the same in each run
        beginning = " ".join("".join(choose.choices("abcdefghijklmnopqrstuvwxyz", k=4)) for _ in range(WORDS))
        messages = [{"role": "system", "content": beginning}]
        for turn in range(TURNS):
            messages.append({"role": "user", "content": f"Question {turn}: {choose.random()}?"})
            seconds, answer = await asyncio.to_thread(self._ask, messages)
            messages.append({"role": "assistant", "content": answer})
            if turn:
                self.first_tokens.append(seconds)

    def _ask(self, messages: list[dict[str, str]]) -> tuple[float, str]:
        body = {"model": servers.NAME, "messages": messages, "max_tokens": ANSWER_TOKENS, "ignore_eos": True}
        began, seconds, answer = time.perf_counter(), 0.0, ""
        for event in self._client.events({**body, "temperature": 0}):
            if event.text and not answer:
                seconds = time.perf_counter() - began
            answer += event.text
        return seconds, answer


def counted(ports: list[int]) -> tuple[float, float]:
    """Prompt tokens that all instances have looked up in their caches, and found there."""
    found = [LoadClient(port, servers.NAME).metrics() for port in ports]
    queries, hits = (sum(each[f"vllm:prefix_cache_{name}_total"] for each in found) for name in ("queries", "hits"))
    return queries, hits


async def measured(way: str, instances: list[tuple[int, int]], seed: str) -> str:
    """The line of the table for a way."""
    ports = [port for port, _agent in instances]
    async with proxied(instances, servers.NAME, AT_A_TIME, WAYS[way]) as port:
        while not await asyncio.to_thread(process.answers, "/ready", port):
            await asyncio.sleep(0.1)
        before, client = counted(ports), Client(port, seed)
        await pooled(CONVERSATIONS, CLIENTS, client.lead)
    asked, found = (after - earlier for after, earlier in zip(counted(ports), before))
    return f"| {way} | {found / asked:.0%} of {asked:.0f} | {statistics.median(client.first_tokens):.2f} |"


async def report(rounds: int) -> None:
    """Print all of it."""
    python = servers.bigdl()
    with tempfile.TemporaryDirectory(prefix="xpu-") as place, ExitStack() as stack:
        instances: list[tuple[int, int]] = []
        for number in range(INSTANCES):
            folder, port, agent = Path(place) / str(number), process.free_port(), process.free_port()
            folder.mkdir()
            settings: dict[str, Any] = {"agent_port": agent, "batch_requests": AT_A_TIME, "threads": 1}
            settings["hosts"] = [""]  # HAProxy's checks name none
            log = cache.RUN / "logs" / f"bench-prefix-{number}.log"
            log.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(process.running(servers.served("bigdl", **settings)(python, folder, port), port, log))
            instances.append((port, agent))
        print("# What it is worth that a conversation stays at one instance\n")
        print(f"`python3 -m tests.bench.prefix` on {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC, {this_machine()}.")
        print(f"{INSTANCES} instances, SmolLM2-135M-Instruct, engine bigdl;")
        print(f"{CLIENTS} clients, {CONVERSATIONS} conversations of {TURNS} turns.\n")
        print("| requests spread by | prompt tokens found in the cache | first token of later turns, p50 s |")
        print("|---|--:|--:|")
        for number in range(rounds):
            for way in WAYS:
                print(await measured(way, instances, f"{way} {number}"), flush=True)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="measure each way so often (default: 1)")
    asyncio.run(report(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
