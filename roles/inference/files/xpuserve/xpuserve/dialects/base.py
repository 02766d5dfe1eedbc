"""What dialects share: the parts of an answer, and reading them from text that comes piece by piece."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, NamedTuple

# Kinds of parts. A call's text is the name of its tool; its arguments come in any number of parts.
TEXT, THOUGHT, CALL, ARGUMENTS = "text", "thought", "call", "arguments"
OPEN_THOUGHT, CLOSE_THOUGHT = "<think>", "</think>"


class Part(NamedTuple):
    """Some more of an answer."""

    kind: str
    text: str


class Reader(ABC):
    """Reads one answer. What could still become something else is held back until it is clear."""

    @abstractmethod
    def feed(self, text: str) -> list[Part]:
        """The parts that are clear now that `text` has come."""

    @abstractmethod
    def finish(self) -> list[Part]:
        """What was held back, when no text follows."""


class FirstCall(Reader):
    """Passes on what another reader gives, without all calls but the first."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._calls = 0

    def feed(self, text: str) -> list[Part]:
        """See Reader."""
        return self._wanted(self._reader.feed(text))

    def finish(self) -> list[Part]:
        """See Reader."""
        return self._wanted(self._reader.finish())

    def _wanted(self, parts: Sequence[Part]) -> list[Part]:
        wanted = []
        for part in parts:
            self._calls += part.kind == CALL
            if self._calls <= 1 or part.kind not in (CALL, ARGUMENTS):
                wanted.append(part)
        return wanted


class Dialect(ABC):
    """The way of one family of models."""

    native: ClassVar[bool] = True  # whether the chat template writes tools, calls and results by itself
    # Special tokens that the readers need to see; all others are no part of an answer's text.
    markers: ClassVar[tuple[str, ...]] = ()

    def __init__(self, template: str) -> None:
        self.thinks = OPEN_THOUGHT in template or CLOSE_THOUGHT in template
        self.template = template

    @classmethod
    @abstractmethod
    def writes(cls, template: str) -> bool:
        """Whether a chat template is for models of this family."""

    @abstractmethod
    def reader(self, tools: Collection[str]) -> Reader:
        """A reader of one answer, which may call these tools; the call of another is text."""

    def call_id(self) -> str:
        """A new id for a call, as the family's template takes it."""
        return f"call_{uuid.uuid4().hex[:24]}"


def overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` that `marker`, which is not in it, begins with."""
    longest = min(len(text), len(marker) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)


def held(text: str, markers: Sequence[str]) -> int:
    """How much of the end of `text` may be the beginning of one of `markers`."""
    return max((overlap(text, marker) for marker in markers), default=0)


def merged(parts: Iterator[Part]) -> list[Part]:
    """The parts, with neighbours of one kind as one; a call stays alone."""
    result: list[Part] = []
    for part in parts:
        if result and part.kind == result[-1].kind != CALL:
            result[-1] = Part(part.kind, result[-1].text + part.text)
        elif part.text or part.kind == CALL:
            result.append(part)
    return result
