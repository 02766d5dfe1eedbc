"""Mistral and Mixtral from version 3 on: after a tag, a list of calls, or each call's name and arguments."""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Generator, Iterator
from typing import Optional

from xpuserve.dialects.base import ARGUMENTS, CALL, TEXT, Dialect, Part, Reader, held, merged
from xpuserve.dialects.calls import CallReader, Span

TAG, ARGS, ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
# Name, perhaps an id, and perhaps a tag before the arguments: newer tokenizers.
_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\w*\s*)?(?:\[ARGS\])?\s*(?=\{)")

_NAME = re.compile(r"[\w.-]+\s*(?:$|\[)")
_BETWEEN = " \r\n\t,[]"


class Mistral(Dialect):
    """`[TOOL_CALLS] [{"name": "f", "arguments": {}}]`, or `[TOOL_CALLS]f[ARGS]{}` as often as there are calls."""

    markers = (TAG, ARGS, ID)

    @classmethod
    def writes(cls, template: str) -> bool:
        """See Dialect."""
        return TAG in template

    def reader(self, tools: Collection[str]) -> Reader:
        """See Dialect."""
        return MistralReader(tools)

    def call_id(self) -> str:
        """See Dialect. The template refuses other ids."""
        return uuid.uuid4().hex[:9]


class MistralReader(Reader):
    """Text, and after the tag calls to the answer's end."""

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._text = ""  # not yielded yet; after the tag, of the next call
        self._before = ""  # dropped if a call follows: blanks, the tag and a bracket
        self._tagged = self._called = False
        self._listed: Optional[CallReader] = None  # a call in a list
        self._arguments: Optional[Span] = None  # of a call by name

    def feed(self, text: str) -> list[Part]:
        """See Reader."""
        return merged(self._feed(text))

    def finish(self) -> list[Part]:
        """See Reader."""
        rest = self._text
        if self._listed:
            self._listed.finish()
            rest = self._listed.rest if self._listed.failed else ""
        if self._arguments or (self._called and not rest.strip(_BETWEEN)):
            rest = self._before = ""
        rest, self._text, self._before = self._before + rest, "", ""
        self._listed = self._arguments = None
        return merged(iter([Part(TEXT, rest)]))

    def _feed(self, text: str) -> Iterator[Part]:
        while text:
            if self._arguments:
                end = self._arguments.feed(text)
                yield Part(ARGUMENTS, text[:end])
                text = "" if end is None else text[end:]
                self._arguments = self._arguments if end is None else None
            elif self._listed:
                yield from self._listed.feed(text)
                text = ""
                if self._listed.done:
                    text, self._listed, self._called, self._before = self._listed.rest, None, True, ""
                elif self._listed.failed:
                    text, self._listed = self._listed.rest, None
                    yield from self._no_call(text)
                    text = ""
            elif self._tagged:
                self._text += text
                text = yield from self._next_call()
            else:
                self._text += text
                before, tag, text = self._text.partition(TAG)
                if tag:
                    clear = before.rstrip()
                    yield Part(TEXT, clear)
                    self._text, self._before, self._tagged = "", before[len(clear) :] + tag, True
                else:
                    yield from self._plain()

    def _plain(self) -> Iterator[Part]:
        keep = held(self._text, (TAG,))
        text = self._text[: len(self._text) - keep]
        keep += len(text) - len(text.rstrip())
        yield Part(TEXT, self._text[: len(self._text) - keep])
        self._text = self._text[len(self._text) - keep :]

    def _no_call(self, text: str) -> Iterator[Part]:
        # This tag is text: only later text may be another one.
        yield Part(TEXT, self._before + text)
        self._text, self._before, self._tagged, self._called = "", "", False, False

    def _next_call(self) -> Generator[Part, None, str]:
        """Begin the next call, as soon as its form is certain; returns its text."""
        text = self._text
        again = text.lstrip(_BETWEEN.replace("[", ""))
        if self._called and again.startswith(TAG):
            text = again.removeprefix(TAG)
        elif self._called and TAG.startswith(again):
            return ""
        begin = text.lstrip(_BETWEEN)
        skipped = "" if self._called else text[: len(text) - len(begin)]
        named = _NAMED.match(begin)
        if begin.startswith("{"):
            self._listed, self._text, self._before = CallReader(self._tools), "", self._before + skipped
            return begin
        if named and named[1] in self._tools:
            self._arguments, self._text, self._called, self._before = Span(), "", True, ""
            yield Part(CALL, named[1])
            return begin[named.end() :]
        if named or (begin and not _NAME.match(begin)):
            yield from self._no_call(text)
        return ""
