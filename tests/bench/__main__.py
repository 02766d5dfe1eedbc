"""Compare the service with its peers: the same weights, one after the other on this machine, asked by `xpuserve bench`.

Figures of a CPU that others may use say little by themselves: between any two contestants the raw loop of OpenVINO
GenAI is measured, and the table has ratios to it.
"""

from __future__ import annotations

import argparse
import datetime
import os
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rig import cache
from rig.host import RigError, say

from tests.bench import process, report
from tests.bench.report import Measured, Report, Row
from tests.bench.servers import CONTESTANTS, RAW, STRUCTURED, looped, versions

Run = dict[str, Any]
README = Path(__file__).resolve().parents[2] / "roles/inference/README.md"
LEAST_REQUESTS = 8
# Clients of a pair, and a schema whose answers are longer than any that is measured.
PAIR_CLIENTS, SCHEMA = 8, Path(__file__).with_name("schema.json")
# Length of each answer where only its streaming is measured: the reading of prompts then takes few of the steps.
LONG_TOKENS = 300
# Times of an engine's step with which the service's own cost is measured; the first is that of the promise. In the
# longer one a processor falls asleep, and its caches are forgotten.
STEP_SECONDS = (0.02, 0.002)
# The contestant whose time between tokens is to be even.
EVEN = "openvino-1"


def main() -> int:
    """Return 0 if everything was measured and every promise kept, otherwise 1."""
    options = parsed(sys.argv[1:])
    try:
        environments = {name: CONTESTANTS[name].python() for name in (RAW, *options.servers)}
    except RigError as error:
        print(error, file=sys.stderr)
        return 1
    present = [name for name in options.servers if environments[name]]
    bench = Bench(options, {name: path for name, path in environments.items() if path})
    turns = []
    for number in range(options.rounds):
        for name in present:
            turns += [bench.turn(RAW, number), bench.turn(name, number)]
    turns.append(bench.turn(RAW, options.rounds))
    found = Report(turns, RAW)
    rows = [Row(name, CONTESTANTS[name].title, CONTESTANTS[name].peer) for name in (RAW, *present)]
    lines = document(found, rows, options)
    promised = report.promises(found, rows, options.clients)
    if "openvino" in present:
        costs, least = (
            [bench.cost("openvino", script, seconds) for seconds in STEP_SECONDS] for script in ("cost.py", "floor.py")
        )
        lines += map(report.cost, costs, least, STEP_SECONDS)
        promised.append(report.cheap(costs[0]))
    if EVEN in present:
        promised += report.even(bench.once(EVEN), options.clients)
    for name in STRUCTURED if options.pairs else ():
        if name in present:
            pairs = bench.pairs(name)
            lines.append(report.structured(CONTESTANTS[name].title, pairs))
            promised.append(report.as_fast(name, pairs))
    print("\n".join(["", *lines, "", *map(str, promised)]))
    if options.write:
        report.write(README, lines)
    measured = not any(found.errors(row.name) or found.failures(row.name) for row in rows)
    return 0 if measured and all(promise.kept for promise in promised) else 1


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(prog="make bench-inference", description=__doc__)
    others = [name for name, each in CONTESTANTS.items() if name != RAW and not each.asked_for]
    more = [name for name, each in CONTESTANTS.items() if each.asked_for]
    parser.add_argument("--clients", type=numbers, default=[1, 4, 8, 16], metavar="N,...", help="(default: 1,4,8,16)")
    parser.add_argument(
        "--servers",
        type=chosen,
        default=others,
        metavar="NAME,...",
        help=f"of {', '.join(others)} (default: these), {', '.join(more)}",
    )
    parser.add_argument("--rounds", type=int, default=1, metavar="N", help="measure all so often (default: 1)")
    parser.add_argument("--requests", type=int, default=2, metavar="N", help="of each client (default: 2)")
    parser.add_argument("--prompt-tokens", type=int, default=64, metavar="N", help="(default: 64)")
    parser.add_argument("--max-tokens", type=int, default=64, metavar="N", help="length of an answer (default: 64)")
    parser.add_argument(
        "--pairs",
        type=int,
        default=5,
        metavar="N",
        help="runs of 8 clients with a JSON schema, each beside one with plain answers of as many tokens, of "
        f"{' and '.join(STRUCTURED)} if they take part; 0 for none (default: 5)",
    )
    parser.add_argument("--write", action="store_true", help="put the table into roles/inference/README.md")
    return parser.parse_args(arguments)


def numbers(text: str) -> list[int]:
    """Numbers of clients."""
    return [int(part) for part in text.split(",")]


def chosen(text: str) -> list[str]:
    """Names of contestants, in order of measurement."""
    names = text.split(",")
    unknown = sorted(set(names) - set(CONTESTANTS))
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}")
    return [name for name in CONTESTANTS if name in names and name != RAW]


class Bench:
    """Measures contestants, one at a time."""

    def __init__(self, options: argparse.Namespace, environments: dict[str, Path]) -> None:
        self._options = options
        self._environments = environments
        self._requests = {count: max(LEAST_REQUESTS, options.requests * count) for count in options.clients}
        self._logs = cache.RUN / "logs"
        self._logs.mkdir(parents=True, exist_ok=True)

    def turn(self, name: str, number: int) -> Measured:
        """Measure one contestant with every number of clients; the round's number selects the prompts."""
        return self._measured(name, number, self._requests, self._options.max_tokens)

    def once(self, name: str) -> Measured:
        """Measure one contestant with every number of clients, each of which asks once, for a long answer."""
        return self._measured(name, 0, {count: count for count in self._options.clients}, LONG_TOKENS)

    def _measured(self, name: str, number: int, requests: Mapping[int, int], max_tokens: int) -> Measured:
        say(f"{name}, answers of {max_tokens} tokens ...")
        runs: dict[int, dict[str, Any]] = {}
        error = ""
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            try:
                for clients, run in self._runs(name, number, Path(folder), requests, max_tokens):
                    runs[clients] = run
                    say(f"{name}: {clients} clients, {run['tokens_per_second']:.0f} tok/s, {run['failed']} failed")
            except process.BenchError as problem:
                error = str(problem)
                say(f"{name}: {error}")
        return Measured(name, runs, error)

    def pairs(self, name: str) -> list[tuple[Run, Run]]:
        """Runs of one server with plain answers and with a JSON schema, each pair with the same prompts, in turns."""
        found: list[tuple[Run, Run]] = []
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            try:
                for pair in self._pairs(name, Path(folder)):
                    found.append(pair)
                    say(f"{name}: pair {len(found)}, {' and '.join(report.speeds(pair))} tok/s")
            except process.BenchError as problem:
                say(f"{name}: {problem}")
        return found

    def _pairs(self, name: str, folder: Path) -> Iterator[tuple[Run, Run]]:
        log, port = self._logs / f"bench-pairs-{name}.log", process.free_port()
        start = CONTESTANTS[name].start(self._environments[name], folder, port)
        tokens = [f"--prompt-tokens={self._options.prompt_tokens}", f"--max-tokens={self._options.max_tokens}"]
        requests = self._options.requests * PAIR_CLIENTS
        with process.running(start, port, log):
            for number in range(self._options.pairs):
                pair: dict[bool, Run] = {}
                for form in (False, True) if number % 2 == 0 else (True, False):
                    given = [*tokens, f"--seed={number}", *([f"--schema={SCHEMA}"] if form else [])]
                    pair[form] = process.ask(port, start.model, PAIR_CLIENTS, requests, given)
                yield pair[False], pair[True]

    def cost(self, engine: str, script: str, step_seconds: float) -> dict[int, float]:
        """Microseconds of the service's own CPU for a streamed token, by clients, with a stand-in for its engine that
        does a step in so many seconds (cost.py); or of another script's.
        """
        runs = [(clients, LONG_TOKENS) for clients in self._options.clients]
        work = {"runs": runs, "step_seconds": step_seconds}
        log = self._logs / f"bench-{script}-{engine}.log"
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            start = looped(engine, script)(self._environments[engine], Path(folder), process.free_port())
            found = process.loop(start, work, Path(folder), log)
        return {clients: run["us_per_token"] for clients, run in found.items()}

    def _runs(
        self, name: str, number: int, folder: Path, requests: Mapping[int, int], max_tokens: int
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        contestant, log, port = CONTESTANTS[name], self._logs / f"bench-{name}.log", process.free_port()
        start = contestant.start(self._environments[name], folder, port)
        lengths = {"prompt_tokens": self._options.prompt_tokens, "max_tokens": max_tokens}
        if contestant.loop:
            work = {**lengths, "runs": list(requests.items()), "seed": number}
            yield from process.loop(start, work, folder, log).items()
            return
        given = [f"--{key.replace('_', '-')}={value}" for key, value in lengths.items()]
        with process.running(start, port, log):
            for clients, count in requests.items():
                seed = f"--seed={1000 * number + clients}"
                yield clients, process.ask(port, start.model, clients, count, [*given, seed])


def document(found: Report, rows: Sequence[Row], options: argparse.Namespace) -> list[str]:
    """The part for the documents."""
    date = datetime.datetime.now(tz=datetime.timezone.utc).date()
    arguments = shlex.join(argument for argument in sys.argv[1:] if argument != "--write")
    command = f"make bench-inference BENCH='{arguments}'" if arguments else "make bench-inference"
    absent = [CONTESTANTS[name].title for name in options.servers if name not in [row.name for row in rows]]
    intro = (
        f"{date}, `{command}`, {os.cpu_count()} processors ({processor()}), SmolLM2-135M-Instruct, prompts of"
        f" {options.prompt_tokens} tokens, answers of {options.max_tokens}; {versions()}. Ratios to the first row,"
        " measured just before and after each: of tokens a second more is better, of the time to the first token (p50)"
        " less."
    )
    remarks = report.notes(found, rows, options.clients, options.max_tokens)
    remarks += [f"{title}: not measured, its build is not in the cache (`make bench-llama-cpp`)." for title in absent]
    table = report.table(found, rows, options.clients)
    return [
        *textwrap.wrap(intro, 120, break_long_words=False, break_on_hyphens=False),
        "",
        *table,
        "",
        *(f"- {remark}" for remark in remarks),
    ]


def processor() -> str:
    """What kind of processor this is."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    sys.exit(main())
