"""The service's metrics, under vLLM's names and with its buckets, in Prometheus' text format."""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

from xpuserve.engine.request import Request

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
    *(160.0, 640.0, 2560.0),
)
_NEXT_TOKEN = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
_REQUEST = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0),
    *(1920.0, 7680.0),
)
Labels = tuple[tuple[str, str], ...]


class Counter:
    """A growing number, for each set of labels."""

    kind = "counter"

    def __init__(self, name: str, text: str) -> None:
        self.name, self.text = name, text
        self._values: dict[Labels, float] = {}

    def add(self, amount: float = 1, **labels: str) -> None:
        """Count."""
        key = tuple(labels.items())
        self._values[key] = self._values.get(key, 0) + amount

    def lines(self, common: Labels) -> Iterator[str]:
        """The values as Prometheus reads them."""
        for labels, value in self._values.items():
            yield _line(self.name, common + labels, value)


class Gauge(Counter):
    """A present value."""

    kind = "gauge"

    def set(self, value: float, **labels: str) -> None:
        """Set the value."""
        self._values[tuple(labels.items())] = value


class Histogram:
    """A histogram: counts of values up to each bound."""

    kind = "histogram"

    def __init__(self, name: str, text: str, bounds: Sequence[float]) -> None:
        self.name, self.text = name, text
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def see(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, common: Labels) -> Iterator[str]:
        """The counts as Prometheus reads them: each includes those before it."""
        total = 0
        for bound, count in zip((*map(float, self._bounds), "+Inf"), self._counts):
            total += count
            yield _line(f"{self.name}_bucket", (*common, ("le", str(bound))), total)
        yield _line(f"{self.name}_sum", common, self._sum)
        yield _line(f"{self.name}_count", common, total)


class Metrics:
    """All metrics. The engine's thread and the web server's loop both call it."""

    def __init__(self, model: str = "", context_length: int = 1) -> None:
        self._lock = threading.Lock()
        self._common: Labels = (("model_name", model), ("engine", "0"))
        tokens = _one_two_five(context_length)
        self._running = Gauge("vllm:num_requests_running", "Requests on the device.")
        self._waiting = Gauge("vllm:num_requests_waiting", "Requests in the queue.")
        self._cache = Gauge("vllm:kv_cache_usage_perc", "Used share of the key-value cache; 1 is all of it.")
        self._looked_up = Counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.")
        self._found = Counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.")
        self._prompt_tokens = Counter("vllm:prompt_tokens_total", "Prompt tokens processed.")
        self._generation_tokens = Counter("vllm:generation_tokens_total", "Tokens generated.")
        self._success = Counter("vllm:request_success_total", "Finished requests by finish reason.")
        self._first = Histogram(
            "vllm:time_to_first_token_seconds", "Time to the first token of an answer.", _FIRST_TOKEN
        )
        self._next = Histogram("vllm:inter_token_latency_seconds", "Time between two tokens of an answer.", _NEXT_TOKEN)
        self._per_token = Histogram(
            "vllm:request_time_per_output_token_seconds", "Mean time between the tokens of an answer.", _NEXT_TOKEN
        )
        self._whole = Histogram("vllm:e2e_request_latency_seconds", "Time to the end of an answer.", _REQUEST)
        self._queue = Histogram("vllm:request_queue_time_seconds", "Time of a request in the queue.", _REQUEST)
        self._inference = Histogram("vllm:request_inference_time_seconds", "Time of a request on the device.", _REQUEST)
        self._prefill = Histogram(
            "vllm:request_prefill_time_seconds", "Time on the device to the first token.", _REQUEST
        )
        self._decode = Histogram("vllm:request_decode_time_seconds", "Time from the first token to the last.", _REQUEST)
        self._prompts = Histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", tokens)
        self._answers = Histogram("vllm:request_generation_tokens", "Tokens of one answer.", tokens)
        self._longest = Histogram(
            "vllm:request_max_num_generation_tokens", "Tokens of the longest answer to a prompt.", tokens
        )
        self._wanted = Histogram("vllm:request_params_max_tokens", "Maximum tokens of an answer, as requested.", tokens)
        self._http = Counter("http_requests_total", "HTTP requests answered.")
        self._key_requests = Counter(
            "xpuserve_key_requests_total", "HTTP requests of an API key, including refused ones."
        )
        self._key_tokens = Counter("xpuserve_key_tokens_total", "Tokens of finished requests of an API key.")
        self._text_requests = Counter(
            "xpuserve_text_requests_total", "Ended requests for embeddings and relevance by outcome."
        )
        self._text_tokens = Counter("xpuserve_text_tokens_total", "Tokens embedded and compared with a query.")
        self._text_waiting = Gauge(
            "xpuserve_text_requests_waiting", "Requests for embeddings and relevance in their queue."
        )
        self._text_seconds = Histogram(
            "xpuserve_text_request_seconds", "Time to the end of a request for embeddings or relevance.", _REQUEST
        )
        self._memory = Gauge("process_resident_memory_bytes", "Resident memory of the service and its engine process.")
        self._memory_of = Gauge("xpuserve_resident_memory_bytes", "Resident memory of each process.")
        self._all: tuple[Counter | Histogram, ...] = (
            *(self._running, self._waiting, self._cache, self._looked_up, self._found),
            *(self._prompt_tokens, self._generation_tokens, self._success, self._first, self._next, self._per_token),
            *(
                self._whole,
                self._queue,
                self._inference,
                self._prefill,
                self._decode,
                self._prompts,
                self._answers,
                self._longest,
                self._wanted,
                self._http,
                self._key_requests,
                self._key_tokens,
                self._text_requests,
                self._text_tokens,
                self._text_waiting,
                self._text_seconds,
                self._memory,
                self._memory_of,
            ),
        )
        self._tokens = 0  # of answers; a counter with labels takes longer
        # A rate needs a series that begins at 0.
        for counter in (self._looked_up, self._found, self._prompt_tokens, self._generation_tokens):
            counter.add(0)
        for reason in ("stop", "length", "abort", "error"):
            self._success.add(0, finished_reason=reason)

    def first_token(self, request: Request) -> None:
        """A request has its first token."""
        times = request.times
        with self._lock:
            self._first.see(times.first - times.submitted)
            self._prompt_tokens.add(len(request.prompt))
            if times.cached is not None:
                self._looked_up.add(len(request.prompt))
                self._found.add(times.cached)
            self._tokens += 1

    def next_tokens(self, gaps: Sequence[float]) -> None:
        """A step has further tokens of requests; `gaps` are the seconds since the token before each."""
        with self._lock:
            for seconds in gaps:
                self._next.see(seconds)
            self._tokens += len(gaps)

    def over(self, request: Request, reason: str) -> None:
        """A request ended: stop, length, abort or error."""
        times, now = request.times, time.monotonic()
        with self._lock:
            self._success.add(finished_reason=reason)
            if request.key:
                self._key_tokens.add(len(request.prompt), key=request.key, kind="prompt")
                self._key_tokens.add(times.tokens, key=request.key, kind="generation")
            if reason not in ("stop", "length"):
                return  # its duration says nothing about the service
            self._whole.see(now - times.submitted)
            self._queue.see(times.started - times.submitted)
            self._inference.see(now - times.started)
            self._prompts.see(len(request.prompt))
            self._answers.see(times.tokens)
            times.complete = True
            answers = [each.times for each in request.together if each.prompt is request.prompt] or [times]
            if all(each.complete for each in answers):
                self._longest.see(max(each.tokens for each in answers))
            self._wanted.see(request.sampling.max_tokens)
            if times.tokens:
                self._prefill.see(times.first - times.started)
                self._decode.see(times.last - times.first)
            if times.tokens > 1:
                self._per_token.see((times.last - times.first) / (times.tokens - 1))

    def texts_over(self, kind: str, outcome: str, tokens: int, seconds: float, key: str = "") -> None:
        """A request for embeddings (embed) or relevance (rerank) ended: stop, abort or error."""
        with self._lock:
            self._text_requests.add(kind=kind, outcome=outcome)
            self._text_tokens.add(tokens, kind=kind)
            if key:
                self._key_tokens.add(tokens, key=key, kind="prompt")
            if outcome == "stop":
                self._text_seconds.see(seconds)

    def http(self, handler: str, method: str, status: int, key: str = "") -> None:
        """An HTTP request was answered; `handler` is its route, not its path, and `key` its key's name."""
        with self._lock:
            if key:
                self._key_requests.add(key=key, status=str(status))
            self._http.add(handler=handler, method=method, status=str(status))

    def text(self, running: int, waiting: int, cache_usage: float = 0.0, engine: int = 0, texts: int = 0) -> str:
        """All metrics. The engine gives the numbers of running and waiting requests, the cache's fill level, its
        process (0: none), and the number of waiting requests for embeddings and relevance.
        """
        service, other = _resident("self"), _resident(str(engine)) if engine else 0
        with self._lock:
            self._generation_tokens.add(self._tokens)
            self._tokens = 0
            self._running.set(running)
            self._waiting.set(waiting)
            self._cache.set(cache_usage)
            self._text_waiting.set(texts)
            self._memory.set(service + other)
            self._memory_of.set(service, process="service")
            self._memory_of.set(other, process="engine")
            lines: list[str] = []
            for metric in self._all:
                lines += (f"# HELP {metric.name} {metric.text}", f"# TYPE {metric.name} {metric.kind}")
                lines += metric.lines(self._common if metric.name.startswith("vllm:") else ())
        return "\n".join(lines) + "\n"


def _resident(process: str) -> int:
    """Resident memory of a process in bytes; 0 if it has ended."""
    try:
        pages = Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def _line(name: str, labels: Labels, value: float) -> str:
    written = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels)
    return f"{name}{{{written}}} {float(value)!r}" if written else f"{name} {float(value)!r}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _one_two_five(most: int) -> list[float]:
    """1, 2, 5, 10, 20 and so on up to `most`."""
    steps = (step * 10**power for power in range(len(str(most))) for step in (1, 2, 5))
    return [step for step in steps if step <= most]
