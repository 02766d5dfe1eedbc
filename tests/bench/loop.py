"""The bare loop of an engine, without HTTP and text: as many concurrent requests as there are clients.

``loop.py CONFIG OUTPUT WORK`` in the engine's environment; CONFIG is the service's configuration, WORK and
OUTPUT are JSON. The model is loaded, and for engine bigdl stepped, by the service's own code.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from xpuserve import backends, cli, settings
from xpuserve.bench import WARM_UP_TOKENS, WORDS, Run, Sample
from xpuserve.engine.backend import Backend
from xpuserve.engine.prompts import encode_chat
from xpuserve.engine.request import Message, Request, SamplingParams


def main() -> int:
    """Measure, and write the result."""
    config, output, work = settings.load(Path(sys.argv[1])), Path(sys.argv[2]), json.loads(sys.argv[3])
    cli._prepare(config)
    backend = backends.create(config, 0)
    backend.load()
    loop = Pipeline(backend) if config.engine == "openvino" else Batches(backend)
    prompts = prompts_of(backend, work["prompt_tokens"], random.Random(work["seed"]))  # noqa: S311 - no secret
    runs = []
    for clients, requests in work["runs"]:
        asked = list(itertools.islice(prompts, clients + requests))
        measure(loop, asked[:clients], clients, min(WARM_UP_TOKENS, work["max_tokens"]))
        runs.append(measure(loop, asked[clients:], clients, work["max_tokens"]).as_dict())
    output.write_text(json.dumps({"runs": runs}), encoding="utf-8")
    return 0


def prompts_of(backend: Backend, tokens: int, dice: random.Random) -> Iterator[list[int]]:
    """Random words, of this length including the chat template."""

    def chat(words: int) -> list[int]:
        text = " ".join(dice.choices(WORDS.split(), k=words))
        return encode_chat(backend.tokenizer, "tokenizer", [Message("user", text)])

    words = max(1, tokens - len(chat(1)) + 1)
    while True:
        yield chat(words)


class Loop(ABC):
    """Steps requests, each with a key."""

    @abstractmethod
    def add(self, prompt: Sequence[int], tokens: int) -> Hashable:
        """Begin an answer of so many tokens."""

    @abstractmethod
    def step(self) -> Iterator[tuple[Hashable, int]]:
        """Make a step; returns the number of new tokens of each request."""

    @abstractmethod
    def over(self, key: Hashable) -> None:
        """The answer is complete."""


class Pipeline(Loop):
    """OpenVINO GenAI's pipeline, loaded and called with the service's options."""

    def __init__(self, backend: Any) -> None:
        self._pipeline = backend._pipeline
        self._config = backend.runner()._config
        self._ids = itertools.count()
        self._handles: dict[Hashable, Any] = {}

    def add(self, prompt: Sequence[int], tokens: int) -> Hashable:
        """See Loop."""
        import numpy  # noqa: PLC0415 - with engine openvino alone, as the next
        import openvino  # noqa: PLC0415

        key = next(self._ids)
        ids = openvino.Tensor(numpy.array([prompt], dtype=numpy.int64))
        self._handles[key] = self._pipeline.add_request(key, ids, self._config(greedy(tokens)))
        return key

    def step(self) -> Iterator[tuple[Hashable, int]]:
        """See Loop."""
        self._pipeline.step()
        for key, handle in list(self._handles.items()):
            if handle.can_read():
                yield key, sum(len(output.generated_ids) for output in handle.read().values())

    def over(self, key: Hashable) -> None:
        """See Loop."""
        del self._handles[key]


class Batches(Loop):
    """The service's own batching."""

    def __init__(self, backend: Backend) -> None:
        self._runner = backend.runner()

    def add(self, prompt: Sequence[int], tokens: int) -> Hashable:
        """See Loop."""
        request = Request("", list(prompt), greedy(tokens), deliver=lambda event: None)
        self._runner.add(request)
        return request

    def step(self) -> Iterator[tuple[Hashable, int]]:
        """See Loop."""
        for output in self._runner.step():
            if output.error:
                raise output.error
            yield output.request, len(output.tokens)

    def over(self, key: Hashable) -> None:
        """See Loop."""
        assert isinstance(key, Request)
        self._runner.drop(key)


def greedy(tokens: int) -> SamplingParams:
    """The sampling of `xpuserve bench`."""
    return SamplingParams(tokens, temperature=0, ignore_eos=True)


def measure(loop: Loop, prompts: Sequence[list[int]], clients: int, tokens: int) -> Run:
    """Answer all prompts, so many at a time."""
    run, waiting = Run(clients), deque(prompts)
    times: dict[Hashable, list[float]] = {}  # when the request began, and when it got tokens
    counts: dict[Hashable, int] = {}
    lengths: dict[Hashable, int] = {}
    began = time.monotonic()
    while waiting or times:
        while waiting and len(times) < clients:
            prompt = waiting.popleft()
            asked = time.monotonic()
            key = loop.add(prompt, tokens)
            times[key], counts[key], lengths[key] = [asked], 0, len(prompt)
        for key, new in loop.step():
            if not new:
                continue
            counts[key] += new
            times[key].append(time.monotonic())
            if counts[key] == tokens:
                loop.over(key)
                run.samples.append(sample(times.pop(key), lengths[key], tokens))
    run.seconds = time.monotonic() - began
    return run


def sample(times: list[float], prompt_tokens: int, tokens: int) -> Sample:
    """The sample of a request, as in `xpuserve bench`."""
    asked, *got = times
    gaps = [after - before for before, after in itertools.pairwise(got)]
    return Sample(got[0] - asked, got[-1] - asked, gaps, prompt_tokens, tokens)


if __name__ == "__main__":
    sys.exit(main())
