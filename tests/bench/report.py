"""From measurements to the table: every figure as a ratio to the raw loop just before and after it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Optional

BEGIN, END = "<!-- bench-inference -->\n", "<!-- /bench-inference -->"


@dataclass(frozen=True)
class Measured:
    """One turn of a contestant: its figures by number of clients, as `xpuserve bench --json` gives them."""

    name: str
    runs: Mapping[int, Mapping[str, Any]] = field(default_factory=dict)
    error: str = ""  # why figures are missing


class Row(NamedTuple):
    """A contestant, as the table names it."""

    name: str
    title: str
    peer: bool = False


def speed(run: Mapping[str, Any]) -> Optional[float]:
    """Answer tokens a second of all clients; none where a request failed."""
    return float(run["tokens_per_second"]) if run["tokens_per_second"] and not run["failed"] else None


def first_token(run: Mapping[str, Any]) -> Optional[float]:
    """Seconds to the first token that half of the requests do not exceed."""
    value = run["first_token_seconds"]["p50"]
    return None if value is None else float(value)


class Report:
    """All measurements, in the order of time."""

    def __init__(self, turns: Sequence[Measured], raw: str) -> None:
        self._turns = turns
        self.raw = raw

    def ratio(
        self, name: str, clients: int, figure: Callable[[Mapping[str, Any]], Optional[float]] = speed
    ) -> Optional[float]:
        """A contestant's figure by that of the raw loop around it; of several rounds, the median."""
        if name == self.raw:
            return 1.0 if self._values(range(len(self._turns)), clients, figure) else None
        ratios = []
        for at, turn in enumerate(self._turns):
            own = figure(turn.runs[clients]) if turn.name == name and clients in turn.runs else None
            raw = self._values(self._around(at), clients, figure)
            if own is not None and raw:
                ratios.append(own / statistics.fmean(raw))
        return statistics.median(ratios) if ratios else None

    def spread(self, clients: int) -> Optional[float]:
        """The largest deviation of the raw loop's speed from its median, as a share of it: the machine's noise."""
        values = self._values(range(len(self._turns)), clients, speed)
        middle = statistics.median(values) if values else 0
        return max(abs(value - middle) for value in values) / middle if middle else None

    def failures(self, name: str) -> int:
        """Requests that failed, of all turns."""
        return sum(run["failed"] for turn in self._turns if turn.name == name for run in turn.runs.values())

    def errors(self, name: str) -> list[str]:
        """Why figures of a contestant are missing."""
        return sorted({turn.error for turn in self._turns if turn.name == name and turn.error})

    def runs(self, name: str) -> list[Mapping[str, Any]]:
        """All runs of a contestant."""
        return [run for turn in self._turns if turn.name == name for run in turn.runs.values()]

    def _around(self, at: int) -> list[int]:
        """The turns of the raw loop that are next to a turn."""
        raw = [n for n, turn in enumerate(self._turns) if turn.name == self.raw]
        return [*[n for n in raw if n < at][-1:], *[n for n in raw if n > at][:1]]

    def _values(
        self, turns: Sequence[int], clients: int, figure: Callable[[Mapping[str, Any]], Optional[float]]
    ) -> list[float]:
        runs = [self._turns[n].runs for n in turns if self._turns[n].name == self.raw]
        values = [figure(run[clients]) for run in runs if clients in run]
        return [value for value in values if value is not None]


def table(report: Report, rows: Sequence[Row], clients: Sequence[int]) -> list[str]:
    """The table, as Markdown that a terminal shows well too."""
    heads = ["", *(f"tok/s, {count} client{'s' * (count > 1)}" for count in clients)]
    heads += [f"first token, {clients[0]} client{'s' * (clients[0] > 1)}", "failed"]
    cells = [heads]
    for row in rows:
        ratios = [report.ratio(row.name, count) for count in clients]
        first = report.ratio(row.name, clients[0], first_token)
        failed = str(report.failures(row.name)) if report.runs(row.name) else "-"
        cells.append([row.title, *map(figure, [*ratios, first]), failed])
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = [f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths))} |" for line in cells]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]


def notes(report: Report, rows: Sequence[Row], clients: Sequence[int], tokens: int) -> list[str]:
    """Notes for readers of the table."""
    lines = []
    spreads = [spread for count in clients if (spread := report.spread(count)) is not None]
    if spreads:
        lines.append(f"The raw loop itself, measured again and again, was within {max(spreads):.0%} of its median.")
    for row in rows:
        lines += [f"{row.title}: {error}" for error in report.errors(row.name)]
        runs = [run for run in report.runs(row.name) if run["answer_tokens_mean"]]
        shortest = min((run["answer_tokens_mean"] for run in runs), default=tokens)
        if shortest < tokens:
            lines.append(f"{row.title}: its answers end where the model ends them, here after {shortest:.0f} tokens.")
        if not all(run.get("counted", True) for run in runs):
            lines.append(f"{row.title}: it counts no tokens in a stream; each piece of text counts as one.")
    return lines


class Promise(NamedTuple):
    """A promise of the service, and its result."""

    what: str
    found: Optional[float]  # None if one of the compared figures is missing
    kept: bool

    def __str__(self) -> str:
        """For people."""
        if self.found is None:
            return f"NOT MEASURED: {self.what}"
        return f"{'kept' if self.kept else 'NOT KEPT'}: {self.what}: {self.found:.2f}"


def promises(report: Report, rows: Sequence[Row], clients: Sequence[int]) -> list[Promise]:
    """Those that compare contestants in `rows`, with these numbers of clients."""
    taking_part = {row.name for row in rows}
    found: list[Promise] = []

    def compare(what: str, own: str, other: str, count: int, least: float) -> None:
        if {own, other} <= taking_part and count in clients:
            mine, theirs = report.ratio(own, count), report.ratio(other, count)
            ratio = mine / theirs if mine is not None and theirs else None
            text = f"{own}, {count} client{'s' * (count > 1)}, tok/s to {what}, at least {least:.2f}"
            found.append(Promise(text, ratio, ratio is not None and ratio >= least))

    for count, least in ((1, 1.0), (4, 0.90), (8, 0.90), (16, 0.90)):
        compare("the raw loop's", "openvino", report.raw, count, least)
    for count in clients:
        compare("what it was before it had two processes", "openvino", "before", count, 1.0)
    for count in (8, 16):
        compare("the raw loop's on a processor", "openvino-1", "raw-1", count, 0.95)
        if {"openvino-1", "before-1"} <= taking_part and count in clients:
            now, then = (report.ratio(name, count, first_token) for name in ("openvino-1", "before-1"))
            ratio = now / then if now is not None and then else None
            what = f"openvino-1, {count} clients, first token to what it was before, at most 0.33"
            found.append(Promise(what, ratio, ratio is not None and ratio <= 1 / 3))
    if "openvino" in taking_part and 1 in clients:
        ratio = report.ratio("openvino", 1, first_token)
        what = "openvino, 1 client, first token to the raw loop's, at most 1.25"
        found.append(Promise(what, ratio, ratio is not None and ratio <= 1.25))
    compare("its own loop's", "bigdl", "bigdl-loop", 8, 0.80)
    compare("a thread per request", "bigdl", "tutorial", 8, 2.0)
    for count in (4, 8, 16):
        for row in rows:
            if row.peer:
                compare(row.name, "openvino", row.name, count, 1.0)
    return found


def cost(microseconds: Mapping[int, float], least: Mapping[int, float], step_seconds: float) -> str:
    """The line about the CPU cost of a token in the service's own process, by clients, and the least possible, with
    steps of that time.
    """
    found, possible = (
        ", ".join(f"{value:.0f} at {clients}" for clients, value in each.items()) for each in (microseconds, least)
    )
    return (
        f"- CPU of the service's own process for a streamed token, with a step every {step_seconds * 1000:g} ms, in"
        f" microseconds by clients: {found}; of a program"
        f" that only looks the text up and sends it: {possible}."
    )


def cheap(microseconds: Mapping[int, float]) -> Promise:
    """Whether that is low enough if steps are shared: a single client pays for each step's message too."""
    shared = [value for clients, value in microseconds.items() if clients >= 8]
    what = "openvino, 8 clients and more, microseconds of the service's own CPU a streamed token, at most 80"
    return Promise(what, max(shared, default=None), bool(shared) and max(shared) <= 80)


def even(turn: Measured, clients: Sequence[int]) -> list[Promise]:
    """Whether tokens come evenly in a turn in which no request arrives, with these numbers of clients."""
    found = []
    for count in clients:
        run = turn.runs.get(count)
        gaps = run["inter_token_seconds"] if run and not run["failed"] else None
        ratio = gaps["p95"] / gaps["p50"] if gaps else None
        what = f"{turn.name}, {count} client{'s' * (count > 1)}, p95 to p50 of the time between tokens, at most 2.5"
        found.append(Promise(what, ratio, ratio is not None and ratio <= 2.5))
    return found


Pairs = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]


def speeds(pair: tuple[Mapping[str, Any], Mapping[str, Any]]) -> tuple[str, str]:
    """The tokens a second of a run with plain answers, and of one with a JSON schema, for people."""
    plain, formed = (speed(run) for run in pair)
    return ("failed" if plain is None else f"{plain:.0f} plain", "failed" if formed is None else f"{formed:.0f} formed")


def ratios(pairs: Pairs) -> list[float]:
    """Of each pair, the tokens a second with a JSON schema to those with plain answers of as many tokens.

    A pair with a failed request, or with other numbers of tokens, has none.
    """
    found = []
    for plain, formed in pairs:
        before, after = speed(plain), speed(formed)
        if before and after and plain["answer_tokens_mean"] == formed["answer_tokens_mean"]:
            found.append(after / before)
    return found


def structured(title: str, pairs: Pairs) -> str:
    """The line about the cost of structured answers."""
    found = ratios(pairs)
    what = f"- {title}: tok/s of 8 clients with a JSON schema to plain answers of as many tokens"
    if not found:
        return f"{what}: not measured."
    spread = f"median of {len(found)} pairs, {min(found):.2f} to {max(found):.2f}"
    return f"{what}: {statistics.median(found):.2f} ({spread})."


def as_fast(name: str, pairs: Pairs) -> Promise:
    """Whether structured answers are nearly as fast as plain ones."""
    found = ratios(pairs)
    middle = statistics.median(found) if len(found) == len(pairs) and found else None
    what = f"{name}, 8 clients, tok/s with a JSON schema to plain answers, at least 0.95"
    return Promise(what, middle, middle is not None and middle >= 0.95)


def figure(value: Optional[float]) -> str:
    """A ratio, for people."""
    return "-" if value is None else f"{value:.2f}"


def write(readme: Path, lines: Sequence[str]) -> None:
    """Put the lines between the marks of a document."""
    text = readme.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    readme.write_text(f"{head}{BEGIN}{chr(10).join(lines)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
