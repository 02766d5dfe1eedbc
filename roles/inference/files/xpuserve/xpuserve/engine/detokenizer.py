"""Turn token ids into text as they come: only whole characters, and nothing that may become a stop sequence."""

from __future__ import annotations

from collections.abc import Callable, Sequence

_INCOMPLETE = "\ufffd"
# Limits for tokens decoded together, and for tokens of one character: calls of a tokenizer are expensive, a few more
# tokens in one call are not.
_TOGETHER = 8
# Longest character in bytes, and so in tokens.
_LONGEST = 4


class Detokenizer:
    """The text of one answer, piece by piece."""

    def __init__(
        self, decode: Callable[[Sequence[int]], str], stop: Sequence[str] = (), before: Sequence[int] = ()
    ) -> None:
        """`before` are the tokens of the text that the answer continues, if any."""
        self._decode = decode
        self._stop = stop
        self._ids = list(before[1 - _TOGETHER :])
        # Tokens are decoded with a few tokens before them, because tokenizers treat a text's first token
        # differently. [_start:_read] is that context, already given out, and _before its text; [_read:] is not given
        # out yet.
        self._start = 0
        self._before = decode(self._ids) if self._ids else ""
        # It began within a character; tokenizers may take the following tokens for part of it, or for no text.
        while self._before.startswith(_INCOMPLETE):
            del self._ids[0]
            self._before = decode(self._ids) if self._ids else ""
        self._read = len(self._ids)
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text to give out after `token` (often none)."""
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
        return self._until_stop(text) if self._stop else text

    def each(self, ids: Sequence[int]) -> list[str]:
        """The text of each of these tokens as the next one; U+FFFD if it ends within a character."""
        context = self._ids[self._start :]
        before = len(self._before)
        whole = self._before + self._decode(context)[before:].rstrip(_INCOMPLETE)
        texts = [self._decode([*context, token]) for token in ids]
        return [_INCOMPLETE if text.endswith(_INCOMPLETE) else text[len(whole) :] for text in texts]

    def finish(self) -> str:
        """The text held back, when no token follows."""
        if self.stopped:
            return ""
        text = self._decode(self._ids[self._start :])[len(self._before) :]
        rest = self._until_stop(text) + self._held
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


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if text.endswith(stop[:n])), 0)
