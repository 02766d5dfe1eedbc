"""Choosing a request's next token, on the CPU and with a generator of its own, so that every device gives the same."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Optional

import numpy

from xpuserve.engine.grammar import Grammars
from xpuserve.engine.request import SamplingParams, Token

#: How many tokens are looked at first for those that hold most of the weight: nearly always enough, and sorted at once.
FEW = 256


class LogitsError(Exception):
    """The model gave no numbers to choose by."""


class Sampler:
    """Chooses the tokens of one answer."""

    def __init__(
        self,
        sampling: SamplingParams,
        prompt: Sequence[int],
        stop_ids: Collection[int] = (),
        grammars: Optional[Grammars] = None,
    ) -> None:
        """`stop_ids` are the model's tokens that end an answer; `grammars` are there where answers may need a form.

        Raises GrammarError.
        """
        self._sampling = sampling
        self._ends = set() if sampling.ignore_eos else set(stop_ids)
        self._ends.update(sampling.stop_token_ids)
        self._mask = grammars.begin(sampling.structured) if grammars and sampling.structured else None
        # Seeds may be negative, which the generator does not take.
        self._random = numpy.random.default_rng(None if sampling.seed is None else sampling.seed % 2**64)
        self._seen = set(prompt)
        self._counts: dict[int, int] = {}

    def __call__(self, logits: Any) -> Token:
        """The token chosen from one row of logits, an array of 32-bit floats; raises LogitsError or GrammarError."""
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
        """Whether the answer has the form that it must have, and nothing more may come."""
        return self._mask is not None and self._mask.complete

    def _biased(self, logits: Any) -> Any:
        """The logits with the request's bias; a token that the model does not have has none."""
        bias = [(token, add) for token, add in self._sampling.logit_bias if token < len(logits)]
        if not bias:
            return logits
        biased = logits.copy()
        for token, add in bias:
            biased[token] += add
        return biased

    def _penalised(self, logits: Any) -> Any:
        """The logits after the penalties: for repetition, of prompt and answer; the others, of the answer alone."""
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
        # Shifted before the division: a tiny temperature then gives -inf, which is a probability of 0, not NaN.
        with numpy.errstate(over="ignore"):
            weights = numpy.exp((logits - logits.max()).astype(numpy.float64) / sampling.temperature)
        # The likeliest token weighs 1.
        weights[weights < sampling.min_p] = 0
        if 0 < sampling.top_k < len(weights):
            # Exactly so many, also where several weigh the same.
            weights[numpy.argpartition(weights, -sampling.top_k)[: -sampling.top_k]] = 0
        if sampling.top_p < 1:
            kept = _nucleus(weights, sampling.top_p)
            weights, others = numpy.zeros_like(weights), weights
            weights[kept] = others[kept]
        ends = numpy.cumsum(weights)
        # side="right" passes over tokens of weight 0.
        return int(numpy.searchsorted(ends, self._random.random() * ends[-1], side="right"))


def told(tokens: Sequence[int], logits: Any, count: int) -> list[Token]:
    """The tokens of a prompt with their log probabilities by as many rows of logits, each after the token before, and
    those of the `count` likeliest; raises LogitsError.
    """
    if not numpy.isfinite(logits).all():
        raise LogitsError("the model's logits are not all finite")
    return [_with_logprobs(token, row, count) for token, row in zip(tokens, logits)]


def _nucleus(weights: Any, share: float) -> Any:
    """The likeliest tokens, as few as hold this share of all weight together."""
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
    """The places of the greatest values, greatest first and then in order; more than `count` where the last are equal.

    A vocabulary has tens of thousands of tokens, of which the few that matter are told apart without sorting it.
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
