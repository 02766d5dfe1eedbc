"""Models that think first: text between tags at the answer's beginning is not part of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from xpuserve.dialects.base import CLOSE_THOUGHT, OPEN_THOUGHT, TEXT, THOUGHT, Part, Reader, held, merged

# The reader's place in the answer: the possible opening tag, the thought, blanks after it, or
# the answer itself.
_BEFORE, _INSIDE, _BEHIND, _OVER = range(4)


class ThinkingReader(Reader):
    """Passes the text after the thought to another reader, or yields it, without one."""

    def __init__(self, then: Optional[Reader], *, begun: bool) -> None:
        """`begun`: the prompt contains the opening tag."""
        self._then = then
        self._text = ""  # not yielded yet
        self._place = _INSIDE if begun else _BEFORE
        self._thought = False  # whether some of it was yielded

    def feed(self, text: str) -> list[Part]:
        """See Reader."""
        return merged(self._feed(text))

    def finish(self) -> list[Part]:
        """See Reader."""
        rest, self._text = self._text, ""
        parts = [Part(THOUGHT, rest.rstrip())] if self._place == _INSIDE else self._pass_on(rest)
        return merged(iter([*parts, *(self._then.finish() if self._then else [])]))

    def _feed(self, text: str) -> Iterator[Part]:
        text, self._text = self._text + text, ""
        if self._place == _BEFORE:
            begin = text.lstrip()
            if OPEN_THOUGHT.startswith(begin) and begin != OPEN_THOUGHT:
                self._text = text
                return
            self._place = _INSIDE if begin.startswith(OPEN_THOUGHT) else _OVER
            text = begin[len(OPEN_THOUGHT) :] if self._place == _INSIDE else text
        if self._place == _INSIDE:
            thought, tag, text = text.partition(CLOSE_THOUGHT)
            # Blanks around it are not part of the thought.
            thought = thought if self._thought else thought.lstrip()
            clear = thought[: len(thought) - (0 if tag else held(thought, (CLOSE_THOUGHT,)))].rstrip()
            self._thought = self._thought or bool(clear)
            yield Part(THOUGHT, clear)
            if not tag:
                self._text = thought[len(clear) :]
                return
            self._place = _BEHIND
        if self._place == _BEHIND:
            text = text.lstrip()
            self._place = _OVER if text else _BEHIND
        yield from self._pass_on(text)

    def _pass_on(self, text: str) -> list[Part]:
        return self._then.feed(text) if self._then and text else [Part(TEXT, text)]
