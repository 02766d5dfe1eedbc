"""Continuous batching for models without their own: which prompts are read and which rows decoded in a step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from xpuserve.engine.backend import Model
from xpuserve.engine.batch import Batch, Prefill
from xpuserve.engine.grammar import Grammars
from xpuserve.engine.prefix import LEAST_TOKENS, PrefixCache, common_tokens
from xpuserve.engine.request import Request, Token
from xpuserve.engine.runner import OutOfMemoryError, Output, Runner
from xpuserve.engine.sampler import Sampler

# Prompt tokens read in a step if their log probabilities are wanted: each has its own row of logits.
TOLD_TOKENS = 128
# The share of the memory for caches that recent conversations may take.
KEPT_SHARE = 1 / 4


@dataclass(eq=False)
class Row:
    """A request on the device. `tokens` are its prompt and answer; all but the last are in the cache, or will be."""

    request: Request
    sampler: Sampler
    tokens: list[int] = field(default_factory=list)
    prefill: Optional[Prefill] = None
    over: bool = False
    failed: bool = False  # others must not use its cache


class Scheduler(Runner):
    """Requests that share the steps of a Model.

    A step decodes one token of every row, or reads one prompt. Between two that decode, prompts are read up to a limit
    of tokens: they do not delay the answers in progress. A prompt's first token is out before the next prompt is read,
    and one that comes meanwhile may be the next: that of the client with the fewest rows. One copy before rows are
    decoded adds the new ones to the batch and removes the finished ones.
    """

    def __init__(
        self,
        model: Model,
        *,
        batch_requests: int,
        batch_tokens: int,
        prefill_tokens: int,
        grammars: Optional[Grammars] = None,
    ) -> None:
        """At most `batch_requests` at a time, whose caches hold `batch_tokens` together; their padding and room, and
        the caches of the last conversations, count. `prefill_tokens` of prompts are read between
        two steps that decode.
        """
        self._model = model
        self._grammars = grammars
        self._batch_requests = self.rows = batch_requests
        self._batch_tokens = batch_tokens
        self._prefill_tokens = prefill_tokens
        self._kept = PrefixCache(int(batch_tokens * KEPT_SHARE))
        self._running_tokens = batch_tokens - int(batch_tokens * KEPT_SHARE)
        self._reset()

    def _reset(self) -> None:
        self._batch = Batch(self._model)
        self._rows: list[Row] = []  # in the batch, in its order
        self._read: list[Row] = []  # prompts that are read, and wait for the batch
        self._prefills: list[Row] = []  # unread prompts, in order
        self._left = self._prefill_tokens  # that may be read before rows are decoded

    @property
    def cache_usage(self) -> float:
        """See Runner. Kept conversations do not count, as they are freed when needed: an idle engine has 0."""
        apart = sum(row.prefill.done for row in self._read + self._prefills if row.prefill)
        return min(1.0, (len(self._rows) * self._batch.width + apart) / self._batch_tokens)

    def fits(self, request: Request) -> bool:
        """See Runner. It reserves room for rows to grow: none has to leave again for lack of memory."""
        rows = [row.request for row in self._active()]
        longest = max(len(each.prompt) + each.sampling.max_tokens for each in (*rows, request))
        taken = (len(rows) + 1) * (longest + self._model.room)
        room = len(rows) < self._batch_requests and taken <= self._running_tokens
        return room or not rows

    def add(self, request: Request) -> None:
        """See Runner."""
        sampler = Sampler(request.sampling, request.prompt, self._model.stop_ids, self._grammars)
        self._prefills.append(Row(request, sampler, list(request.prompt)))

    def drop(self, request: Request) -> None:
        """See Runner."""
        for row in self._active():
            if row.request is request:
                row.over = True

    def step(self) -> Iterator[Output]:
        """See Runner."""
        self._prefills = [row for row in self._prefills if not row.over]
        if self._prefills and (self._left > 0 or not (self._rows or self._read)):
            yield from self._read_prompt(self._next_prompt())
        else:
            self._left = self._prefill_tokens
            yield from self._decode_rows()

    def _decode_rows(self) -> Iterator[Output]:
        try:
            self._change()
            yield from self._decode()
        except OutOfMemoryError as error:
            yield from self._shed(self._begun(), error)
        except Exception as error:  # the content of the caches is unknown now
            rows = self._begun()
            waiting = [row for row in self._prefills if not row.prefill]
            self._reset()
            self._prefills = waiting
            self._kept.clear()
            for row in rows:
                yield Output(row.request, error=error)

    def _next_prompt(self) -> Row:
        """The first of the client with the fewest rows, including prompts that are partly read."""
        rows = Counter(row.request.client for row in self._begun())
        return min(self._prefills, key=lambda row: rows[row.request.client])

    def _read_prompt(self, row: Row) -> Iterator[Output]:
        try:
            yield from self._prefill(row)
        except OutOfMemoryError as error:
            yield from self._shed([row], error)
        except Exception as error:
            self._prefills.remove(row)
            yield Output(row.request, error=error)

    def _begun(self) -> list[Row]:
        """Those of which something is in a cache."""
        partly = [row for row in self._prefills if row.prefill]
        return [row for row in (*self._rows, *self._read, *partly) if not row.over]

    def _active(self) -> list[Row]:
        return [row for row in (*self._rows, *self._read, *self._prefills) if not row.over]

    def _change(self) -> None:
        """Remove finished rows from the batch, and add those whose prompts are read."""
        keep = [n for n, row in enumerate(self._rows) if not row.over]
        new = [row for row in self._read if not row.over]
        if not new and len(keep) == len(self._rows):
            self._read = []
            return
        left = [(row, self._copy(n)) for n, row in enumerate(self._rows) if row.over and not row.failed]
        self._batch.change(keep, [row.prefill.part() for row in new if row.prefill])
        self._rows = [self._rows[n] for n in keep] + new
        self._read = []
        for row in new:
            row.prefill = None
        for row, cache in left:
            if cache is not None:
                self._kept.keep(row.tokens[:-1], cache, row.request.salt)

    def _copy(self, n: int) -> Any:
        """The cache of a finished row, for its conversation's next turn; None if it is not worth the memory."""
        row = self._rows[n]
        if not self._kept.wants(row.tokens[:-1], row.request.salt):  # the last token was never read
            return None
        try:
            return self._model.gather([self._batch.part(n)], grows=False)
        except OutOfMemoryError:
            return None

    def _decode(self) -> Iterator[Output]:
        if not self._rows:
            return
        logits = self._batch.decode([row.tokens[-1] for row in self._rows])
        for row, after in zip(self._rows, logits):
            yield self._choose(row, after)

    def _prefill(self, row: Row) -> Iterator[Output]:
        """Read a prompt, or as much of it as may be read now."""
        if self._left <= 0:
            self._left = self._prefill_tokens
        told: Sequence[Token] = ()
        if row.prefill is None:
            row.prefill = self._begin(row)
        if row.request.sampling.prompt_logprobs:
            others = row.request.sampling.logprobs or 0
            logits, told = row.prefill.read_told(min(TOLD_TOKENS, self._prefill_tokens), others)
            self._left = 0
        else:
            before = row.prefill.done
            logits = row.prefill.read(self._left)
            self._left -= row.prefill.done - before
        if not row.prefill.left:
            self._prefills.remove(row)
            self._read.append(row)
            yield self._choose(row, logits)._replace(prompt=told)
        elif told:
            yield Output(row.request, prompt=told)

    def _begin(self, row: Row) -> Prefill:
        """Begin a prompt where another request of the same salt, finished or not, has read as far."""
        prompt, salt = row.request.prompt, row.request.salt
        if row.request.sampling.prompt_logprobs:  # a cached prompt has no log probabilities
            row.request.times.cached = 0
            return Prefill(self._model, prompt)
        best, longest = self._kept.find(prompt, salt), 0
        if best:
            longest = best.end
        parts = [(other, self._batch.part(n)) for n, other in enumerate(self._rows)]
        parts += [(other, other.prefill.part()) for other in self._read if other.prefill]
        for other, part in parts:
            if other.failed or other.request.salt != salt:
                continue
            common = min(common_tokens(other.tokens, prompt), part.end - part.start)
            if common > max(longest, LEAST_TOKENS - 1):
                best, longest = replace(part, end=part.start + common), common
        prefill = Prefill(self._model, prompt, best)
        row.request.times.cached = prefill.done
        return prefill

    def _choose(self, row: Row, logits: Any) -> Output:
        try:
            token = row.sampler(logits)
        except Exception as error:  # it is this row's alone
            row.over = row.failed = True
            return Output(row.request, error=error)
        row.tokens.append(token.id)
        if row.sampler.ends(token.id):
            row.over = True
            return Output(row.request, ended=True)
        row.over = row.sampler.complete
        return Output(row.request, (token,), ended=row.over)

    def _shed(self, rows: list[Row], error: OutOfMemoryError) -> Iterator[Output]:
        """Free memory: first kept conversations, then the newest of `rows`. The others go on in the next step."""
        if self._kept.tokens:
            self._kept.clear()
        else:
            newest = [row for row in rows if not row.over][-1]
            newest.over = True
            newest.prefill = None
            yield Output(newest.request, error=error)
        self._model.free()
