"""Measure a server of OpenAI's API as its clients see it. It needs only Python's own library.

Several clients send requests at the same time over HTTP, each one after the other, and stream the answers. Prompts
are random from their first word, so that no server can reuse an earlier computation.
"""

from __future__ import annotations

import json
import queue
import random
import statistics
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Optional

from xpuserve.client import APIClient, ClientError

NOTES = """\
what is measured:
  Time runs on the client's side, from before it connects. A client that runs on the server's machine takes some of
  its CPU.
  tok/s          answer tokens of all clients, as the server counts them (usage), by the seconds from the first
                 question to the end of the last answer; with few requests, the end, where clients have nothing more
                 to ask, weighs in. Where a server counts none in a stream, each piece of text counts as one
  client tok/s   the same of one request, its time to the first token included; p5: 95 % were faster
  first token    from the question to the first text of its answer
  inter-token    between two pieces of an answer's text; a line below the table says if they hold more tokens than one
  failed         requests that were refused or not answered to their end; they count nowhere else

Before each run every client asks once, unmeasured. Answers have exactly --max-tokens tokens where the server can do
that (ignore_eos), and are greedy (temperature 0). Prompts are random words, and new ones in every call: a server that
keeps what it computed for prompts gains nothing."""

# Words that most tokenizers have as one token; requests calibrate the number of words for a length.
WORDS = """
    time year people way day man thing woman life child world school state family student group country problem hand
    part place case week company system program question work government number night point home water room mother
    area money story fact month lot right study book eye job word business issue side kind head house service friend
    father power hour game line end member law car city community name
"""
WARM_UP_TOKENS = 16
MANY_WORDS = 16  # more tokens than any one word, whatever the words are
_HEADS = [
    *(("", "clients"), ("", "requests"), ("", "failed"), ("", "tok/s")),
    *(("client", "tok/s p50"), ("", "p5")),
    *(("first token", "ms p50"), ("", "p95")),
    *(("inter-token", "ms p50"), ("", "p95")),
]
_SPREADS = ("client_tokens_per_second", "first_token_seconds", "inter_token_seconds")


@dataclass(frozen=True)
class Load:
    """The load to generate."""

    model: str
    prompt_tokens: int
    max_tokens: int
    ignore_eos: bool
    counted: bool = True  # whether the server counts tokens in a stream
    schema: Optional[dict[str, Any]] = None  # that answers keep to


@dataclass
class Sample:
    """One answered request; times are seconds."""

    first: float
    whole: float
    gaps: list[float]
    prompt_tokens: int
    tokens: int


class _UncountedError(ClientError):
    """A stream without token counts."""


@dataclass
class Run:
    """The results of so many clients."""

    clients: int
    seconds: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, Any]:
        """The figures, without rounding."""
        samples, gaps = self.samples, [gap for sample in self.samples for gap in sample.gaps]
        tokens, failed = sum(sample.tokens for sample in samples), sum(self.errors.values())
        return {
            "clients": self.clients,
            "requests": len(samples) + failed,
            "failed": failed,
            "errors": dict(self.errors),
            "seconds": self.seconds,
            "prompt_tokens_mean": _mean([sample.prompt_tokens for sample in samples]),
            "answer_tokens_mean": _mean([sample.tokens for sample in samples]),
            "tokens_per_piece": tokens / (len(gaps) + len(samples)) if samples else None,
            "tokens_per_second": tokens / self.seconds,
            "requests_per_second": len(samples) / self.seconds,
            "client_tokens_per_second": _spread([sample.tokens / sample.whole for sample in samples], (5, 50)),
            "first_token_seconds": _spread([sample.first for sample in samples], (50, 95)),
            "inter_token_seconds": _spread(gaps, (50, 95)),
            "request_seconds": _spread([sample.whole for sample in samples], (50, 95)),
        }


class Bench:
    """Sends requests to one server."""

    def __init__(self, client: APIClient, load: Load, seed: int) -> None:
        self.load = load
        self._client = client
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._words = load.prompt_tokens

    def prepare(self) -> None:
        """Find out the server's accepted fields and the number of words for a prompt. Raises ClientError."""
        try:
            one = self._length(1)
        except ClientError as error:
            if error.status not in (400, 422) or not self.load.ignore_eos:
                raise
            self.load = replace(self.load, ignore_eos=False)  # OpenAI's own servers, for one, do not know it
            one = self._length(1)
        few = max(2, self.load.prompt_tokens // 4)
        some = self._length(few)
        while some <= one and few < MANY_WORDS:  # a long word can be more tokens than two short ones
            few *= 2
            some = self._length(few)
        if some <= one:
            raise ClientError("the server does not count prompt tokens")
        self._words = max(1, round(1 + (self.load.prompt_tokens - one) * (few - 1) / (some - one)))
        self._ask(self._prompt(self._words), self.load.max_tokens)

    def run(self, clients: int, requests: int) -> Run:
        """Let `clients` send `requests` requests."""
        run, lock, prompts = Run(clients), threading.Lock(), queue.SimpleQueue[str]()
        began: list[float] = []
        warm = threading.Barrier(clients, action=lambda: began.append(time.monotonic()))
        first_prompts = [self._prompt(self._words) for _turn in range(clients)]
        for _turn in range(requests):
            prompts.put(self._prompt(self._words))

        def work(first_prompt: str) -> None:
            with suppress(ClientError):  # the failure would repeat, and is counted
                self._ask(first_prompt, min(WARM_UP_TOKENS, self.load.max_tokens))
            warm.wait()
            while True:
                try:
                    prompt = prompts.get_nowait()
                except queue.Empty:
                    return
                try:
                    sample = self._ask(prompt, self.load.max_tokens)
                except ClientError as error:
                    with lock:
                        run.errors[_kind(error)] += 1
                else:
                    with lock:
                        run.samples.append(sample)

        # Daemons, so that Ctrl-C ends them too.
        threads = [threading.Thread(target=work, args=(prompt,), daemon=True) for prompt in first_prompts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        run.seconds = time.monotonic() - began[0]
        return run

    def _prompt(self, words: int) -> str:
        return " ".join(self._random.choices(WORDS.split(), k=words))

    def _length(self, words: int) -> int:
        """The server's token count of a prompt with so many words."""
        prompt = self._prompt(words)
        if self.load.counted:
            try:
                return self._ask(prompt, 1).prompt_tokens
            except _UncountedError:
                self.load = replace(self.load, counted=False)
        return self._client.usage(self._body(prompt, 1)).get("prompt_tokens", 0)

    def _body(self, prompt: str, max_tokens: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.load.model,
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens,
            "temperature": 0,
        }
        if self.load.schema:
            form = {"name": "answer", "strict": True, "schema": self.load.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif self.load.ignore_eos:
            body["ignore_eos"] = True
        return body

    def _ask(self, prompt: str, max_tokens: int) -> Sample:
        body = self._body(prompt, max_tokens)
        began = time.monotonic()
        times: list[float] = []
        usage: dict[str, int] = {}
        for event in self._client.events(body):
            usage = event.usage or usage
            if event.text or event.thought:
                times.append(time.monotonic())
        whole = time.monotonic() - began
        if "completion_tokens" not in usage or "prompt_tokens" not in usage:
            if self.load.counted:
                raise _UncountedError("the server does not support stream_options.include_usage")
            usage = {"prompt_tokens": self.load.prompt_tokens, "completion_tokens": len(times)}
        gaps = [after - before for before, after in zip(times, times[1:])]
        first = times[0] - began if times else whole
        return Sample(first, whole, gaps, usage["prompt_tokens"], usage["completion_tokens"])


def run(
    client: APIClient,
    model: Optional[str],
    clients: Sequence[int],
    *,
    prompt_tokens: int,
    max_tokens: int,
    requests: Optional[int],
    natural_end: bool,
    schema: Optional[dict[str, Any]] = None,
    seed: Optional[int],
    as_json: bool,
) -> int:
    """Measure and print; returns the exit status, 1 if a request failed."""
    if seed is None:
        seed = random.SystemRandom().randrange(2**32)
    try:
        wanted = Load(model or client.first_model(), prompt_tokens, max_tokens, not natural_end, schema=schema)
        bench = Bench(client, wanted, seed)
        bench.prepare()
        runs = []
        for count in clients:
            print(f"{count} client{'s' * (count > 1)} ...", file=sys.stderr)
            runs.append(bench.run(count, requests or 4 * count).as_dict())
    except ClientError as error:
        print(f"xpuserve: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    report = {"url": client.url, **asdict(bench.load), "seed": seed, "runs": runs}
    print(json.dumps(report, indent=2) if as_json else table(report))
    return 1 if any(run["failed"] for run in runs) else 0


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    rows = [list(head) for head in zip(*_HEADS)]
    for run in report["runs"]:
        client, first, gap = (run[name] for name in _SPREADS)
        rows.append(
            [
                *(str(run[name]) for name in ("clients", "requests", "failed")),
                _figure(run["tokens_per_second"]),
                *(_figure(client[name]) for name in ("p50", "p5")),
                *(_figure(spread[name], 1000) for spread in (first, gap) for name in ("p50", "p95")),
            ]
        )
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    return "\n".join([f"{report['model']} at {report['url']}", *_notes(report), "", *lines, *_failures(report)])


def _notes(report: dict[str, Any]) -> list[str]:
    """The real lengths of prompts and answers, if any came."""
    answered = [run for run in report["runs"] if run["answer_tokens_mean"] is not None]
    if not answered:
        return []
    prompts, answers = (_range([run[f"{kind}_tokens_mean"] for run in answered]) for kind in ("prompt", "answer"))
    lines = [f"tokens on average: prompts {prompts}, answers {answers}"]
    if not report["counted"]:
        lines.append("the server does not count tokens in a stream: each piece of an answer counts as one")
    if not report["ignore_eos"]:
        lines.append("the model ends its answers")
    pieces = [run["tokens_per_piece"] for run in answered]
    if max(pieces) > 1.05:
        lines.append(f"a piece of an answer has {_range(pieces)} tokens: inter-token is the time between pieces")
    return lines


def _failures(report: dict[str, Any]) -> list[str]:
    return [
        f"{run['clients']} clients: {count} x {kind}" for run in report["runs"] for kind, count in run["errors"].items()
    ]


def _kind(error: ClientError) -> str:
    return f"{error.status} {error.code or ''}".strip() if error.status else str(error)


def _range(values: list[float]) -> str:
    least, most = f"{min(values):.4g}", f"{max(values):.4g}"
    return least if least == most else f"{least} to {most}"


def _mean(values: list[int]) -> Optional[float]:
    return statistics.fmean(values) if values else None


def _spread(values: list[float], percents: tuple[int, ...]) -> dict[str, Optional[float]]:
    """The mean and percentiles: the value that so many percent of `values` do not exceed."""
    spread: dict[str, Optional[float]] = {"mean": statistics.fmean(values) if values else None}
    ordered = sorted(values)
    for percent in percents:
        # The nearest rank, in whole numbers: no interpolated value.
        spread[f"p{percent}"] = ordered[max(0, -(-percent * len(ordered) // 100) - 1)] if ordered else None
    return spread


def _figure(value: Optional[float], scale: int = 1) -> str:
    if value is None:
        return "-"
    value *= scale
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
