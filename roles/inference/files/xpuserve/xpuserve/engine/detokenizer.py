"""Turn token ids into text as they come: only whole characters, and nothing that may become a stop sequence."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from typing import Union

from xpuserve.engine.vocabulary import Decode, Table

_INCOMPLETE = "\ufffd"
# Limits for tokens decoded together, and for tokens of one character: calls of a tokenizer are expensive, a few more
# tokens in one call are not.
_TOGETHER = 8
# Longest character in bytes, and so in tokens.
_LONGEST = 4


class Detokenizer:
    """The text of one answer, piece by piece."""

    def __init__(self, decode: Decode, stop: Sequence[str] = (), before: Sequence[int] = ()) -> None:
        """`before` are the tokens of the text that the answer continues, if any."""
        near = list(before[1 - _TOGETHER :])
        self._text: Union[_ByTable, _ByCalls] = (
            _ByTable(decode, near) if isinstance(decode, Table) else _ByCalls(decode, near)
        )
        self._stop = stop
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text to give out after `token` (often none)."""
        text = self._text.push(token)
        return self._until_stop(text) if self._stop else text

    def each(self, ids: Sequence[int]) -> list[str]:
        """The text of each of these tokens as the next one; U+FFFD if it ends within a character."""
        return [_INCOMPLETE if text.endswith(_INCOMPLETE) else text for text in self._text.each(ids)]

    def finish(self) -> str:
        """The text held back, when no token follows."""
        if self.stopped:
            return ""
        rest = self._until_stop(self._text.finish()) + self._held
        self._held = ""
        return rest

    def _until_stop(self, text: str) -> str:
        text = self._held + text
        self._held = ""
        ends = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if ends:
            self.stopped = True
            return text[: min(ends)]
        keep = max((_overlap(text, stop) for stop in self._stop), default=0)
        if keep:
            text, self._held = text[:-keep], text[-keep:]
        return text


class _ByTable:
    """Decodes each token once."""

    def __init__(self, table: Table, before: Sequence[int]) -> None:
        self._known = table.known
        self._errors = table.errors
        self._decoder = codecs.getincrementaldecoder("utf-8")(table.errors)
        begun = [self._decoder.decode(self._known[token]) for token in before]
        self._strips = table.stripped and not any(begun)

    def push(self, token: int) -> str:
        text = self._decoder.decode(self._known[token])
        if text and self._strips:
            self._strips = False
            return text[1:] if text[0] == " " else text
        return text

    def each(self, ids: Sequence[int]) -> list[str]:
        begun, _flag = self._decoder.getstate()
        texts = [(begun + self._known[token]).decode("utf-8", self._errors) for token in ids]
        return [text[1:] if self._strips and text[:1] == " " else text for text in texts]

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class _ByCalls:
    """Calls a tokenizer's library.

    Tokens are decoded with a few tokens before them, because tokenizers treat a text's first token differently.
    [_start:_read] is that context, already given out, and _before its text; [_read:] is not given out yet.
    """

    def __init__(self, decode: Decode, before: list[int]) -> None:
        self._decode = decode
        self._ids = before
        self._start = 0
        self._before = decode(self._ids) if self._ids else ""
        # It began within a character; tokenizers may take the following tokens for part of it, or for no text.
        while self._before.startswith(_INCOMPLETE):
            del self._ids[0]
            self._before = decode(self._ids) if self._ids else ""
        self._read = len(self._ids)

    def push(self, token: int) -> str:
        self._ids.append(token)
        whole = self._decode(self._ids[self._start :])
        text, read = whole[len(self._before) :], len(self._ids)
        if text.endswith(_INCOMPLETE):
            if read - self._read < _LONGEST:
                return ""
            # These bytes are neither a character nor the beginning of one: the first one is part of none.
            read = self._read + 1
            whole = self._decode(self._ids[self._start : read])
            text = whole[len(self._before) :]
        last, self._read, self._before = self._read, read, whole
        if self._read - self._start >= _TOGETHER:
            self._start = last
            self._before = self._decode(self._ids[last:read])
        return text

    def each(self, ids: Sequence[int]) -> list[str]:
        context = self._ids[self._start :]
        before = len(self._before)
        whole = self._before + self._decode(context)[before:].rstrip(_INCOMPLETE)
        texts = [self._decode([*context, token]) for token in ids]
        return [text if text.endswith(_INCOMPLETE) else text[len(whole) :] for text in texts]

    def finish(self) -> str:
        return self._decode(self._ids[self._start :])[len(self._before) :]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
