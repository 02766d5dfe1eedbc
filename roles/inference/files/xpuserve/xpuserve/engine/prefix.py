"""Key-value caches of finished requests, for a conversation's next turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Optional

from xpuserve.engine.backend import Part

# Number of conversations to keep, however short: each is compared with every new prompt.
CONVERSATIONS = 16
# Copying fewer tokens is no cheaper than reading them again.
LEAST_TOKENS = 16


class PrefixCache:
    """The caches of recent conversations, up to a number of tokens together. Each salt sees only its own."""

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], Any] = OrderedDict()  # least recently used first

    @property
    def tokens(self) -> int:
        """Number of tokens kept."""
        return sum(len(tokens) for _salt, tokens in self._kept)

    def find(self, prompt: Sequence[int], salt: str = "") -> Optional[Part]:
        """The longest cached beginning of `prompt`, without its last token, whose logits are needed."""
        best, length = None, LEAST_TOKENS - 1
        for known in self._kept:
            common = common_tokens(known[1], prompt) if known[0] == salt else 0
            if common > length:
                best, length = known, common
        if best is None:
            return None
        self._kept.move_to_end(best)
        return Part(self._kept[best], 0, 0, length)

    def wants(self, tokens: Sequence[int], salt: str = "") -> bool:
        """Whether these would be kept: they are no beginning of a kept one, and fit."""
        if not LEAST_TOKENS <= len(tokens) <= self._room:
            return False
        return not any(tuple(tokens) == kept[: len(tokens)] and own == salt for own, kept in self._kept)

    def keep(self, tokens: Sequence[int], cache: Any, salt: str = "") -> None:
        """Keep a one-row cache of `tokens`; it replaces the one that they continue, or the oldest."""
        new = tuple(tokens)
        for own, kept in list(self._kept):
            if own == salt and kept == new[: len(kept)]:
                del self._kept[own, kept]
        self._kept[salt, new] = cache
        while len(self._kept) > CONVERSATIONS or self.tokens > self._room:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def common_tokens(known: Sequence[int], prompt: Sequence[int]) -> int:
    """Number of tokens that both begin with, at most up to the prompt's last but one."""
    most = min(len(known), len(prompt) - 1)
    return next((n for n in range(most) if known[n] != prompt[n]), most)
