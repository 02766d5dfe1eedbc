"""Which tokens may come next in an answer with a required form."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import Any, Optional

import numpy

from xpuserve import structured
from xpuserve.engine.backend import Tokenizer
from xpuserve.engine.vocabulary import token_bytes

# Number of compiled forms to keep: applications reuse a few of them.
KEPT = 32


class GrammarError(Exception):
    """The library cannot compute the next allowed tokens any more."""


class Grammars:
    """Compiles forms for one vocabulary. Only the engine's thread calls it."""

    def __init__(self, tokens: Sequence[bytes], stop_ids: Collection[int]) -> None:
        """`tokens` are the bytes of each, empty for special ones; `stop_ids` are those that end an answer."""
        from llguidance import LLParserLimits  # noqa: PLC0415 - the service's process needs none of this

        self._stop_ids = sorted(stop_ids) or [len(tokens)]
        self._tokenizer = structured.library_tokenizer(tokens, self._stop_ids[0])
        self._limits = LLParserLimits(**structured.LIMITS)
        self._compiled: OrderedDict[structured.StructuredOutput, Any] = OrderedDict()

    @classmethod
    def of(cls, tokenizer: Tokenizer, stop_ids: Collection[int]) -> Optional[Grammars]:
        """The grammars for a tokenizer; None if the bytes of its tokens are unknown."""
        tokens = token_bytes(tokenizer)
        return cls(tokens, stop_ids) if tokens else None

    def begin(self, output: structured.StructuredOutput) -> Mask:
        """Return the mask of one answer with this validated form. Raises GrammarError."""
        from llguidance import LLMatcher  # noqa: PLC0415 - as above

        if output not in self._compiled:
            self._compiled[output] = LLMatcher(self._tokenizer, output.grammar(), limits=self._limits, log_level=0)
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(output)
        return Mask(self._compiled[output].deep_copy(), self._stop_ids)


class Mask:
    """Keeps one answer to its form."""

    def __init__(self, matcher: Any, stop_ids: Sequence[int]) -> None:
        self._matcher = matcher
        self._stop_ids = stop_ids
        self._check()

    @property
    def complete(self) -> bool:
        """Whether the answer has its form and has to end."""
        return bool(self._matcher.is_stopped())

    def masked(self, logits: Any) -> Any:
        """The logits, with minus infinity for tokens that may not come next. Raises GrammarError."""
        bits = numpy.frombuffer(self._matcher.compute_bitmask(), numpy.uint8)
        self._check()
        allowed = numpy.zeros(len(logits), bool)
        known = numpy.unpackbits(bits, bitorder="little", count=min(8 * len(bits), len(logits))).view(bool)
        allowed[: len(known)] = known
        # The library knows one end-of-answer token; if it may come, so may the others.
        if self._stop_ids[0] < len(allowed):
            stops = [token for token in self._stop_ids if token < len(allowed)]
            allowed[stops] = allowed[stops[0]]
        masked = numpy.where(allowed, logits, numpy.float32(-numpy.inf))
        if not allowed.any():
            raise GrammarError("no token is allowed next")
        return masked

    def take(self, token: int) -> None:
        """Advance by the chosen token. Raises GrammarError."""
        self._matcher.consume_token(self._stop_ids[0] if token in self._stop_ids else token)
        self._check()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(self._matcher.get_error())
