"""A language model of a few lines, whose next token depends on every token that it sees, on its position and on nothing
else; so whatever a batch mixes up shows in the answer.
"""

from __future__ import annotations

import socket
import threading
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Optional

import numpy
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import ByteTokenizer
from xpuserve.engine.backend import Backend, Model, Part
from xpuserve.engine.channel import Channel, ChannelError
from xpuserve.engine.messages import Ready, encode
from xpuserve.engine.remote import RemoteBackend
from xpuserve.engine.request import Event, Request, SamplingParams
from xpuserve.engine.runner import OutOfMemoryError
from xpuserve.engine.scheduler import Scheduler
from xpuserve.engine.worker import Worker

VOCABULARY, END = 40, 0
ROOM = 7


@dataclass
class TinyCache:
    """Tokens and positions, [rows, columns, 2], in memory with room for some more columns."""

    memory: Any
    columns: int

    @property
    def seen(self) -> Any:
        return self.memory[:, : self.columns]


class TinyModel(Model):
    """Writes new columns behind a cache's last, in place, while there is room: as BigDL's attention does."""

    stop_ids = frozenset({END})
    room = ROOM

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []  # rows and tokens of each
        self.most_cells: Optional[int] = None  # rows times columns, with their room, that memory is there for
        self.fails_after: Optional[int] = None  # tokens in a prompt
        self.decodes = True
        self.lost = False
        self.blind: Optional[int] = None  # tokens of a row for which there are no logits
        self.poison: Optional[int] = None  # a token that no kernel can read
        self.freed = 0

    def forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        rows, tokens = ids.shape
        columns = cache.columns if cache else 0
        if self.lost:
            raise RuntimeError("device lost")
        if self.poison in ids:
            raise IndexError("index out of range")
        memory = cache.memory if cache else numpy.empty((rows, 0, 2), numpy.int64)
        self._need(rows, memory.shape[1] if memory.shape[1] >= columns + tokens else columns + tokens + ROOM)
        if self.fails_after is not None and tokens > self.fails_after:
            raise ValueError("a prompt that the model cannot read")
        if not self.decodes and cache and tokens == 1:
            raise ValueError("a batch that the model cannot decode")
        self.steps.append((rows, tokens))
        if memory.shape[1] < columns + tokens:
            grown = numpy.full((rows, columns + tokens + ROOM, 2), -1, numpy.int64)
            grown[:, :columns] = memory[:, :columns]
            memory = grown
        memory[:, columns : columns + tokens] = numpy.stack([ids, numpy.broadcast_to(positions, ids.shape)], axis=-1)
        cache = TinyCache(memory, columns + tokens)
        after = numpy.stack([logits(row[seen]) for row, seen in zip(cache.seen, mask)])
        after[mask.sum(axis=1) == self.blind] = numpy.nan
        return after, cache

    def every(self, ids: Any, positions: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        before = cache.columns if cache else 0
        _last, cache = self.forward(ids, positions, mask, cache)
        seen = cache.seen[0]
        return numpy.stack([logits(seen[: n + 1]) for n in range(before, cache.columns)]), cache

    def gather(self, parts: Sequence[Part], *, grows: bool) -> Any:
        columns = max(part.end - part.start for part in parts)
        self._need(len(parts), columns + ROOM * grows)
        memory = numpy.zeros((len(parts), columns + ROOM * grows, 2), numpy.int64)
        for n, part in enumerate(parts):
            memory[n, columns - (part.end - part.start) : columns] = part.cache.seen[part.row, part.start : part.end]
        return TinyCache(memory, columns)

    def cache_tokens(self) -> int:
        return 1000

    def free(self) -> None:
        self.freed += 1

    def _need(self, rows: int, columns: int) -> None:
        if self.most_cells is not None and rows * columns > self.most_cells:
            raise OutOfMemoryError(f"{rows} rows of {columns}")


def logits(seen: Any) -> Any:
    """Of the token that follows these tokens at these positions."""
    random = numpy.random.default_rng(zlib.crc32(numpy.ascontiguousarray(seen).tobytes()))
    return random.normal(size=VOCABULARY).astype(numpy.float32)


def expected(prompt: Sequence[int], most: int) -> list[int]:
    """The likeliest answer, by a run over everything for each token."""
    tokens = list(prompt)
    while len(tokens) < len(prompt) + most:
        token = int(logits(numpy.array([*zip(tokens, range(len(tokens)))])).argmax())
        if token == END:
            break
        tokens.append(token)
    return tokens[len(prompt) :]


def request(prompt: Sequence[int], most: int = 10, name: str = "r", **sampling: Any) -> Request:
    """A request for the likeliest answer; its events go nowhere."""

    def deliver(event: Event) -> None:
        pass

    return Request(name, list(prompt), SamplingParams(most, **{"temperature": 0, **sampling}), deliver)


class TinyTokenizer(ByteTokenizer):
    """A letter for each token, from A on."""

    bos_id = None  # type: ignore[assignment]  # a tokenizer may have none
    eos_id = END

    def encode(self, text: str, *, special: bool) -> list[int]:
        return [(ord(letter) - ord("A")) % VOCABULARY for letter in text]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(ord("A") + token) for token in ids)


class TinyBackend(Backend):
    """Serves the model above in batches."""

    offers = frozenset({"logit_bias", "logprobs", "top_logprobs", "prompt_logprobs"})

    def __init__(self) -> None:
        self.model = TinyModel()
        self.second = TinyTokenizer()

    def load(self) -> None:
        self.tokenizer = TinyTokenizer()

    def second_tokenizer(self) -> TinyTokenizer:
        return self.second

    def runner(self) -> Scheduler:
        return Scheduler(self.model, batch_requests=4, batch_tokens=10**8, prefill_tokens=16)


class RemoteTiny(RemoteBackend):
    """The same behind a channel; its process is a thread, so that a test can change the model."""

    restartable = False

    def __init__(self, tiny: TinyBackend) -> None:
        settings = SimpleNamespace(stall_timeout=60, start_timeout=60)
        super().__init__(
            (),
            settings,  # type: ignore[arg-type]
            0,
            tokenizer=TinyTokenizer,
            second_tokenizer=lambda: tiny.second,
        )
        self._tiny = tiny

    def _start(self) -> None:
        own, its = (Channel(end, 60) for end in socket.socketpair())
        self._channel = own
        thread = threading.Thread(target=self._work, args=(its,))
        self._process = SimpleNamespace(  # type: ignore[assignment]
            pid=0,
            poll=lambda: None if thread.is_alive() else 1,
            wait=lambda *_timeout: (thread.join(), 1)[1],  # type: ignore[func-returns-value]
            kill=lambda: None,
        )
        thread.start()

    def _work(self, channel: Channel) -> None:
        runner = self._tiny.runner()
        channel.send(encode(Ready(runner.batching, runner.rows, sorted(self._tiny.offers))))
        with suppress(ChannelError):  # the engine is gone
            Worker(runner, channel).run()
        channel.close()
