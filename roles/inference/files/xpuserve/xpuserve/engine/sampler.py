"""Choose a request's next token, on the CPU and with its own generator, so that every device gives the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Optional

import numpy

from xpuserve.engine.grammar import Grammars
from xpuserve.engine.request import SamplingParams, Token

#: Number of tokens to sort first: they nearly always hold enough of the weight.
FEW = 256


class LogitsError(Exception):
    """The model's logits are no numbers."""


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(
        self,
        sampling: SamplingParams,
        prompt: Sequence[int],
        stop_ids: Collection[int] = (),
        grammars: Optional[Grammars] = None,
    ) -> None:
        """`stop_ids` are the model's end-of-answer tokens; `grammars` is required for answers with a form.

        Raises GrammarError.
        """
        self._sampling = sampling
        self._ends = set() if sampling.ignore_eos else set(stop_ids)
        self._ends.update(sampling.stop_token_ids)
        self._mask = grammars.begin(sampling.structured) if grammars and sampling.structured else None
        # Seeds may be negative, which the generator does not accept.
        self._random = numpy.random.default_rng(None if sampling.seed is None else sampling.seed % 2**64)
        self._seen = set(prompt)
        self._counts: dict[int, int] = {}

    def __call__(self, logits: Any) -> Token:
        """The token chosen from one row of logits, an array of 32-bit floats. Raises LogitsError or GrammarError."""
        if not numpy.isfinite(logits).all():
            raise LogitsError("the model's logits are not all finite")
        allowed = self._biased(self._penalised(logits))
        if self._mask:
            allowed = self._mask.masked(allowed)
        elif sum(self._counts.values()) < self._sampling.min_tokens:
            allowed = allowed.copy()
            allowed[[token for token in self._ends if token < len(allowed)]] = -numpy.inf
        token = self._choose(allowed)
        if self._mask:
            self._mask.take(token)
        self._seen.add(token)
        self._counts[token] = self._counts.get(token, 0) + 1
        if self._sampling.logprobs is None:
            return Token(token)
        return _with_logprobs(token, logits, self._sampling.logprobs)

    def ends(self, token: int) -> bool:
        """Whether this token ends the answer, and is no part of it."""
        return token in self._ends

    @property
    def complete(self) -> bool:
        """Whether the answer has its required form and has to end."""
        return self._mask is not None and self._mask.complete

    def _biased(self, logits: Any) -> Any:
        """The logits with the request's bias; ids beyond the vocabulary are ignored."""
        bias = [(token, add) for token, add in self._sampling.logit_bias if token < len(logits)]
        if not bias:
            return logits
        biased = logits.copy()
        for token, add in bias:
            biased[token] += add
        return biased

    def _penalised(self, logits: Any) -> Any:
        """The logits after the penalties: repetition counts prompt and answer, the others only the answer."""
        sampling = self._sampling
        penalised = logits
        if sampling.repetition_penalty != 1:
            penalised = logits.copy()
            ids = numpy.fromiter(self._seen, numpy.int64)
            old = logits[ids]
            penalised[ids] = numpy.where(old > 0, old / sampling.repetition_penalty, old * sampling.repetition_penalty)
        if self._counts and (sampling.presence_penalty or sampling.frequency_penalty):
            penalised = penalised.copy()
            ids = numpy.fromiter(self._counts, numpy.int64)
            counts = numpy.fromiter(self._counts.values(), numpy.float32)
            penalised[ids] -= sampling.presence_penalty + sampling.frequency_penalty * counts
        return penalised

    def _choose(self, logits: Any) -> int:
        sampling = self._sampling
        if sampling.temperature == 0:
            return int(logits.argmax())
        # Shift before the division: a tiny temperature then gives -inf, a probability of 0, not NaN.
        with numpy.errstate(over="ignore"):
            weights = numpy.exp((logits - logits.max()).astype(numpy.float64) / sampling.temperature)
        # The likeliest token weighs 1.
        weights[weights < sampling.min_p] = 0
        if 0 < sampling.top_k < len(weights):
            # Exactly so many, even if several weigh the same.
            weights[numpy.argpartition(weights, -sampling.top_k)[: -sampling.top_k]] = 0
        if sampling.top_p < 1:
            kept = _nucleus(weights, sampling.top_p)
            weights, others = numpy.zeros_like(weights), weights
            weights[kept] = others[kept]
        ends = numpy.cumsum(weights)
        # side="right" skips tokens of weight 0.
        return int(numpy.searchsorted(ends, self._random.random() * ends[-1], side="right"))


def told(tokens: Sequence[int], logits: Any, count: int) -> list[Token]:
    """The tokens of a prompt with their log probabilities from as many rows of logits, each after the token before, and
    those of the `count` likeliest. Raises LogitsError.
    """
    if not numpy.isfinite(logits).all():
        raise LogitsError("the model's logits are not all finite")
    return [_with_logprobs(token, row, count) for token, row in zip(tokens, logits)]


def _nucleus(weights: Any, share: float) -> Any:
    """The fewest likeliest tokens that hold this share of all weight together."""
    wanted = share * weights.sum()
    possible = numpy.flatnonzero(weights)
    count = FEW
    while True:
        order = possible[_likeliest(weights[possible], count)]
        before = numpy.cumsum(weights[order]) - weights[order]
        if before[-1] > wanted or len(order) == len(possible):
            return order[before <= wanted]
        count *= 8


def _likeliest(values: Any, count: int) -> Any:
    """The indexes of the greatest values, greatest first, then in order; more than `count` if the last are equal.

    A vocabulary has tens of thousands of tokens; this finds the few that matter without sorting it.
    """
    if count >= len(values):
        return numpy.argsort(-values, kind="stable")
    places = numpy.flatnonzero(values >= numpy.partition(values, -count)[-count])
    return places[numpy.argsort(-values[places], kind="stable")]


def _with_logprobs(token: int, logits: Any, count: int) -> Token:
    """The token with its log probability and those of the `count` likeliest."""
    wide = logits.astype(numpy.float64)
    wide -= wide.max()
    wide -= numpy.log(numpy.exp(wide).sum())
    likeliest = _likeliest(wide, count)[:count] if count else ()
    return Token(token, float(wide[token]), tuple((int(each), float(wide[each])) for each in likeliest))
