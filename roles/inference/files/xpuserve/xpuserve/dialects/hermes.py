"""Hermes 2 and 3, Qwen 2.5 and 3, and others: calls as JSON between tags."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Optional

from xpuserve.dialects.base import TEXT, Dialect, Part, Reader, held, merged
from xpuserve.dialects.calls import CallReader

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class Hermes(Dialect):
    """`<tool_call>\\n{"name": "f", "arguments": {}}\\n</tool_call>`, as often as there are calls."""

    markers = (OPEN, CLOSE)

    @classmethod
    def writes(cls, template: str) -> bool:
        """See Dialect. Another family has separate tags for parameters."""
        return OPEN in template and "<parameter=" not in template and "arg_key" not in template

    def reader(self, tools: Collection[str]) -> Reader:
        """See Dialect."""
        return HermesReader(tools)


class HermesReader(Reader):
    """Text, and calls between tags. Other text between tags stays text, with the tags."""

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._call: Optional[CallReader] = None
        self._text = ""  # not yielded yet
        self._blank = ""  # text before the tag, if a call follows
        self._called = False

    def feed(self, text: str) -> list[Part]:
        """See Reader."""
        return merged(self._feed(text))

    def finish(self) -> list[Part]:
        """See Reader."""
        parts: list[Part] = []
        if self._call:
            self._call.finish()
            if self._call.failed:
                parts.append(Part(TEXT, self._blank + OPEN + self._call.rest))
            self._call = None
        elif self._text.strip() or not self._called:
            parts.append(Part(TEXT, self._text))
        self._text = ""
        return merged(iter(parts))

    def _feed(self, text: str) -> Iterator[Part]:
        while True:
            if self._call:
                yield from self._call.feed(text)
                if self._call.done:
                    self._text, self._called = self._call.rest, True
                elif self._call.failed:
                    yield Part(TEXT, self._blank + OPEN)
                    self._text, self._called = self._call.rest, False
                else:
                    return
                self._call, text = None, ""
            self._text += text
            if self._called:  # line breaks and the closing tag are no text
                self._text = self._text.lstrip()
                if self._text.startswith(CLOSE):
                    self._text = self._text[len(CLOSE) :].lstrip()
                if CLOSE.startswith(self._text):
                    return
                self._called = False
            before, tag, after = self._text.partition(OPEN)
            if not tag:
                keep = self._kept()
                yield Part(TEXT, self._text[: len(self._text) - keep])
                self._text = self._text[len(self._text) - keep :]
                return
            clear = before.rstrip()
            yield Part(TEXT, clear)
            self._blank = before[len(clear) :]
            self._call, self._text, text = CallReader(self._tools), "", after

    def _kept(self) -> int:
        """The possible beginning of a tag, and blanks, which are dropped before one."""
        keep = held(self._text, (OPEN,))
        text = self._text[: len(self._text) - keep]
        return keep + len(text) - len(text.rstrip())
