"""Llama 3.1 to 3.3: the answer is a call, as JSON."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Optional

from xpuserve.dialects.base import TEXT, Dialect, Part, Reader, merged
from xpuserve.dialects.calls import CallReader

TAG = "<|python_tag|>"
_BETWEEN = " \r\n\t;,"


class Llama(Dialect):
    """`{"name": "f", "parameters": {}}`, several with semicolons between; a tag may stand before it."""

    markers = (TAG,)

    @classmethod
    def writes(cls, template: str) -> bool:
        """See Dialect."""
        return "<|start_header_id|>" in template and "tools" in template

    def reader(self, tools: Collection[str]) -> Reader:
        """See Dialect."""
        return BareReader(tools, TAG)


class BareReader(Reader):
    """Calls from the answer's beginning to its end; any other answer is text."""

    def __init__(self, tools: Collection[str], tag: str = "") -> None:
        self._tools = tools
        self._tag = tag
        self._head = ""  # of the answer, while that may be the tag or a call
        self._call: Optional[CallReader] = None
        self._plain = False
        self._called = False

    def feed(self, text: str) -> list[Part]:
        """See Reader."""
        return merged(self._feed(text))

    def finish(self) -> list[Part]:
        """See Reader."""
        rest = self._head
        if self._call:
            self._call.finish()
            rest = self._unread() if self._call.failed else ""
        self._call, self._head = None, ""
        return merged(iter([Part(TEXT, rest)])) if rest.strip(_BETWEEN) or not self._called else []

    def _feed(self, text: str) -> Iterator[Part]:
        while text:
            if self._plain:
                yield Part(TEXT, text)
                return
            if not self._call:
                self._head += text
                begin = self._head.lstrip(_BETWEEN if self._called else None)
                if not begin or (self._tag and self._tag.startswith(begin) and begin != self._tag):
                    return
                text = begin.removeprefix(self._tag) if self._tag else begin
                self._call = CallReader(self._tools)
            yield from self._call.feed(text)
            text = ""
            if self._call.done:
                text, self._called = self._call.rest, True
                self._call, self._head = None, ""
            elif self._call.failed:
                text = self._unread()
                self._call, self._head, self._plain = None, "", True

    def _unread(self) -> str:
        """Text that is no call; at the answer's beginning with the blanks before it."""
        assert self._call  # noqa: S101 - as its callers have it
        blank = "" if self._called else self._head[: len(self._head) - len(self._head.lstrip())]
        return blank + self._call.rest
