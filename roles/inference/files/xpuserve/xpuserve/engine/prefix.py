"""What finished requests leave in the key-value cache, for a conversation's next turn."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Optional

from xpuserve.engine.backend import Part

# Conversations that are kept, however short: each is compared with every new prompt.
CONVERSATIONS = 16
# A copy of less is no cheaper than reading the tokens again.
LEAST_TOKENS = 16


class PrefixCache:
    """The caches of the last conversations, up to so many tokens together. Those of another salt are not found."""

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._kept: OrderedDict[tuple[str, tuple[int, ...]], Any] = OrderedDict()  # the one used last comes last

    @property
    def tokens(self) -> int:
        """Tokens that are kept."""
        return sum(len(tokens) for _salt, tokens in self._kept)

    def find(self, prompt: Sequence[int], salt: str = "") -> Optional[Part]:
        """The longest beginning of `prompt` that is kept, but for its last token: its logits are wanted."""
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
        """Whether these would be kept: they are no beginning of what is, and fit."""
        if not LEAST_TOKENS <= len(tokens) <= self._room:
            return False
        return not any(tuple(tokens) == kept[: len(tokens)] and own == salt for own, kept in self._kept)

    def keep(self, tokens: Sequence[int], cache: Any, salt: str = "") -> None:
        """Keep a cache of one row that holds `tokens`; what they continue, or what is oldest, goes."""
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
    """How many tokens both begin with, but for the prompt's last."""
    most = min(len(known), len(prompt) - 1)
    return next((n for n in range(most) if known[n] != prompt[n]), most)
