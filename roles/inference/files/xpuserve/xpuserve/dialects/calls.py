"""Reads one call, a JSON object with a name and arguments, while it streams; arguments pass through unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from typing import Any, Optional

from xpuserve.dialects.base import ARGUMENTS, CALL, Part

_STRING = r'"((?:[^"\\]|\\.)*)"'
# A call whose arguments can stream; with another order of keys it is read when it is complete.
_HEAD = re.compile(
    rf'\s*\{{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*{_STRING}\s*,\s*"(?:arguments|parameters)"\s*:\s*(?=\{{)',
    re.DOTALL,
)
_NAMED = re.compile(rf'\s*\{{\s*(?:"type"\s*:\s*"function"\s*,\s*)?"name"\s*:\s*{_STRING}', re.DOTALL)
_SIGNIFICANT = re.compile(r'["\\{}\[\]]')


class Span:
    """Finds the end of a JSON object or array in streamed text."""

    def __init__(self, depth: int = 0) -> None:
        """`depth` is the number of brackets open before the text."""
        self._depth = depth
        self._quoted = False
        self._skip = 0  # characters after a backslash at the end of the last piece

    def feed(self, text: str) -> Optional[int]:
        """The position in `text` where the object ends, or None if it continues."""
        at, self._skip = self._skip, 0
        while match := _SIGNIFICANT.search(text, at):
            at, sign = match.end(), match.group()
            if self._quoted:
                if sign == "\\":
                    if at == len(text):
                        self._skip = 1
                    at += 1
                elif sign == '"':
                    self._quoted = False
            elif sign == '"':
                self._quoted = True
            elif sign in "{[":
                self._depth += 1
            elif sign in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    return at
        return None


class CallReader:
    """Reads one call of one of `tools` from text that begins with it.

    `done` means that it is complete, `failed` that the text is no such call; `rest` is the text after it, or all.
    """

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._whole = Span()
        self._inner: Optional[Span] = None  # of the arguments, while they stream
        self._began = False  # the call has been yielded
        self._text = ""
        self.rest = ""
        self.done = self.failed = False

    def feed(self, text: str) -> Iterator[Part]:
        """The certain parts of the call after `text`."""
        if self._inner:
            yield from self._argue(text)
            return
        if self._began:
            self._skip(text)
            return
        self._text += text
        if self._text.lstrip()[:1] not in ("{", ""):
            self._fail()
            return
        head = _HEAD.match(self._text)
        if head and _decoded(head[1]) in self._tools:
            yield Part(CALL, str(_decoded(head[1])))
            self._inner, self._whole, self._began = Span(), Span(1), True
            yield from self._argue(self._text[head.end() :])
            return
        named = _NAMED.match(self._text)
        if named and _decoded(named[1]) not in self._tools:
            self._fail()
            return
        end = self._whole.feed(text)
        if end is not None:
            yield from self._complete(len(self._text) - len(text) + end)

    def finish(self) -> None:
        """No text follows: an incomplete call fails."""
        if not self.done and not self._began:
            self._fail()

    def _argue(self, text: str) -> Iterator[Part]:
        assert self._inner  # noqa: S101 - as its callers have it
        end = self._inner.feed(text)
        if text:
            yield Part(ARGUMENTS, text if end is None else text[:end])
        if end is not None:
            self._inner = None
            self._skip(text[end:])

    def _skip(self, text: str) -> None:
        """After the arguments, ignore everything up to the end of the object."""
        end = self._whole.feed(text)
        if end is not None:
            self.done, self.rest = True, text[end:]

    def _complete(self, end: int) -> Iterator[Part]:
        call = read_call(self._text[:end], self._tools)
        if call is None:
            self._fail()
            return
        self.done, self.rest = True, self._text[end:]
        yield Part(CALL, call[0])
        yield Part(ARGUMENTS, call[1])

    def _fail(self) -> None:
        self.failed, self.rest = True, self._text


def read_call(text: str, tools: Collection[str]) -> Optional[tuple[str, str]]:
    """Name and arguments of a complete call, or None if the text is no call."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("function"), dict):
        value = value["function"]
    name, arguments = value.get("name"), value.get("arguments", value.get("parameters", {}))
    if isinstance(arguments, str):  # JSON in JSON
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    if not isinstance(name, str) or name not in tools or not isinstance(arguments, dict):
        return None
    return name, json.dumps(arguments, ensure_ascii=False)


def _decoded(text: str) -> Optional[str]:
    try:
        return str(json.loads(f'"{text}"'))
    except ValueError:
        return None
