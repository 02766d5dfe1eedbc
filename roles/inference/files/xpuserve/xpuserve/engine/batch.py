"""Rows of different length that are decoded together.

All rows of a cache end in the same column; shorter ones are padded on the left. Padding is masked, and tokens keep
the positions of their own row, so that a row gives the same tokens as a run by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Optional

import numpy

from xpuserve.engine.backend import Model, Part
from xpuserve.engine.request import Token
from xpuserve.engine.sampler import told


class Batch:
    """The cache of the rows that are decoded together. An OutOfMemoryError leaves it unchanged."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._cache: Any = None
        self.lengths: list[int] = []  # tokens of each row that are in the cache

    @property
    def width(self) -> int:
        """Columns of the cache: as many as its longest row needs."""
        return max(self.lengths, default=0)

    def part(self, row: int) -> Part:
        """A row without its padding."""
        return Part(self._cache, row, self.width - self.lengths[row], self.width)

    def change(self, keep: Sequence[int], new: Sequence[Part]) -> None:
        """Keep the rows `keep`, in that order, and append `new`.

        One copy does both, and trims padding that all rows have in common.
        """
        parts = [*map(self.part, keep), *new]
        self._cache = self._model.gather(parts, grows=True) if parts else None
        self.lengths = [part.end - part.start for part in parts]

    def decode(self, tokens: Sequence[int]) -> Any:
        """Read one more token of each row; returns the logits for the next one, a row each."""
        lengths = numpy.array(self.lengths)[:, None]
        mask = numpy.arange(self.width + 1) >= self.width - lengths
        logits, self._cache = self._model.forward(numpy.array(tokens)[:, None], lengths, mask, self._cache)
        self.lengths = [length + 1 for length in self.lengths]
        return logits


class Prefill:
    """A prompt that is read alone, in chunks; `part` may hold its beginning already."""

    def __init__(self, model: Model, prompt: Sequence[int], part: Optional[Part] = None) -> None:
        self._model = model
        self._prompt = prompt
        self._cache = model.gather([part], grows=False) if part else None
        self.done = part.end - part.start if part else 0

    @property
    def left(self) -> int:
        """Number of unread tokens."""
        return len(self._prompt) - self.done

    def read(self, tokens: int) -> Any:
        """Read some more of them; returns the logits after the last, [vocabulary]."""
        return self._read(tokens, self._model.forward)[0]

    def read_told(self, tokens: int, count: int) -> tuple[Any, list[Token]]:
        """The same with log probabilities: those of the following tokens, and of so many alternatives each.

        The first call includes the prompt's first token, so that in the end each token has been covered once.
        """
        start = self.done
        logits = self._read(tokens, self._model.every)
        first = [Token(self._prompt[0])] if start == 0 else []
        return logits[-1], first + told(
            self._prompt[start + 1 : self.done + 1], logits[: len(self._prompt) - 1 - start], count
        )

    def _read(self, tokens: int, forward: Callable[[Any, Any, Any, Any], tuple[Any, Any]]) -> Any:
        """Read some more of them by a method of the model; returns its logits."""
        end = min(self.done + tokens, len(self._prompt))
        ids, positions = numpy.array([self._prompt[self.done : end]]), numpy.arange(self.done, end)[None]
        logits, self._cache = forward(ids, positions, numpy.ones((1, end), bool), self._cache)
        self.done = end
        return logits

    def part(self) -> Part:
        """The tokens read so far, as a row for a batch."""
        return Part(self._cache, 0, 0, self.done)
