"""Continuous batching for models that have none of their own: who is read, decoded, and let go in a step."""

from __future__ import annotations

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

# Tokens of a prompt that are read in a step where it is asked how likely they are: each has a row of logits of its own.
TOLD_TOKENS = 128
# Of the memory for caches, what the last conversations may take.
KEPT_SHARE = 1 / 4


@dataclass(eq=False)
class Row:
    """A request on the device. `tokens` are its prompt and answer; all but the last are in the cache, or will be."""

    request: Request
    sampler: Sampler
    tokens: list[int] = field(default_factory=list)
    prefill: Optional[Prefill] = None
    over: bool = False
    failed: bool = False  # what its cache holds is not for others


class Scheduler(Runner):
    """Requests that share the steps of a Model.

    A step decodes one token of every row, and then reads the next prompts, up to so many tokens of them: a long one
    does not hold up the answers that are under way. Rows that came and went since the last step are put into the batch
    and taken out in one copy, before the next.
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
        the caches of the last conversations, count. `prefill_tokens` of prompts are read in one step.
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
        self._read: list[Row] = []  # prompts that are read, and wait to be put into the batch
        self._prefills: list[Row] = []  # prompts that are not, in the order in which they came

    @property
    def cache_usage(self) -> float:
        """See Runner. What is only kept goes as soon as it is in the way, so it is not taken: at rest this is 0."""
        apart = sum(row.prefill.done for row in self._read + self._prefills if row.prefill)
        return min(1.0, (len(self._rows) * self._batch.width + apart) / self._batch_tokens)

    def fits(self, request: Request) -> bool:
        """See Runner. What rows may grow to counts: none is ever taken out again for want of room."""
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
        try:
            self._change()
            yield from self._decode()
        except OutOfMemoryError as error:
            begun = [row for row in self._prefills if row.prefill]
            yield from self._shed([*self._rows, *self._read, *begun], error)
        except Exception as error:  # nobody knows what the caches hold now
            begun = [row for row in self._prefills if row.prefill]
            rows = [row for row in (*self._rows, *self._read, *begun) if not row.over]
            waiting = [row for row in self._prefills if not row.prefill]
            self._reset()
            self._prefills = waiting
            self._kept.clear()
            for row in rows:
                yield Output(row.request, error=error)
        self._prefills = [row for row in self._prefills if not row.over]
        try:
            yield from self._prefill()
        except OutOfMemoryError as error:
            yield from self._shed(self._prefills[:1], error)

    def _active(self) -> list[Row]:
        return [row for row in (*self._rows, *self._read, *self._prefills) if not row.over]

    def _change(self) -> None:
        """Take rows that are over out of the batch, and put in those whose prompts are read."""
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
        """The cache of a row that leaves, for its conversation's next turn; None where it is not worth the memory."""
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

    def _prefill(self) -> Iterator[Output]:
        """Read prompts, each by itself, in the order in which they came."""
        left = self._prefill_tokens
        while self._prefills and left > 0:
            row = self._prefills[0]
            told: Sequence[Token] = ()
            try:
                if row.prefill is None:
                    row.prefill = self._begin(row)
                if row.request.sampling.prompt_logprobs:
                    others = row.request.sampling.logprobs or 0
                    logits, told = row.prefill.read_told(min(TOLD_TOKENS, self._prefill_tokens), others)
                    left = 0
                else:
                    before = row.prefill.done
                    logits = row.prefill.read(left)
                    left -= row.prefill.done - before
            except OutOfMemoryError:
                raise
            except Exception as error:
                self._prefills.pop(0)
                yield Output(row.request, error=error)
                continue
            if not row.prefill.left:
                self._read.append(self._prefills.pop(0))
                yield replace(self._choose(row, logits), prompt=told)
            elif told:
                yield Output(row.request, prompt=told)

    def _begin(self, row: Row) -> Prefill:
        """Start to read a prompt where another request of the same salt, over or under way, has read as far."""
        prompt, salt = row.request.prompt, row.request.salt
        if row.request.sampling.prompt_logprobs:  # what another has read tells nothing of its tokens
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
        """Free memory: first what is only kept, then the newest of `rows`. The others go on in the next step."""
        if self._kept.tokens:
            self._kept.clear()
        else:
            newest = [row for row in rows if not row.over][-1]
            newest.over = True
            newest.prefill = None
            yield Output(newest.request, error=error)
        self._model.free()
