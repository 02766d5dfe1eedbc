"""Common part of dialects: the parts of an answer, and reading them from streamed text."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Sequence
from typing import ClassVar, NamedTuple

# Kinds of parts. A call's text is its tool's name; its arguments come in any number of parts.
TEXT, THOUGHT, CALL, ARGUMENTS = "text", "thought", "call", "arguments"
OPEN_THOUGHT, CLOSE_THOUGHT = "<think>", "</think>"


class Part(NamedTuple):
    """A further part of an answer."""

    kind: str
    text: str


class Reader(ABC):
    """Reads one answer. It holds back text that could still become something else."""

    @abstractmethod
    def feed(self, text: str) -> list[Part]:
        """The parts that are certain after `text`."""

    @abstractmethod
    def finish(self) -> list[Part]:
        """The text held back, when no more follows."""


class FirstCall(Reader):
    """Passes on another reader's parts, without calls after the first."""

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
    """The syntax of one family of models."""

    native: ClassVar[bool] = True  # whether the chat template supports tools, calls and results
    # Special tokens that the readers need; all others are no part of an answer's text.
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
        """A reader of one answer, which may call these tools; a call of another one counts as text."""

    def call_id(self) -> str:
        """A new id for a call, as the family's template accepts it."""
        return f"call_{uuid.uuid4().hex[:24]}"


def overlap(text: str, marker: str) -> int:
    """Length of the longest end of `text` with which `marker`, which is not in it, begins."""
    longest = min(len(text), len(marker) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(marker[:n])), 0)


def held(text: str, markers: Sequence[str]) -> int:
    """Length of the end of `text` that may begin one of `markers`."""
    return max((overlap(text, marker) for marker in markers), default=0)


def merged(parts: Iterator[Part]) -> list[Part]:
    """The parts, with neighbours of one kind joined; a call stays separate."""
    result: list[Part] = []
    for part in parts:
        if result and part.kind == result[-1].kind != CALL:
            result[-1] = Part(part.kind, result[-1].text + part.text)
        elif part.text or part.kind == CALL:
            result.append(part)
    return result
