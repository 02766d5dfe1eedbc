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
    """The caches of the last conversations, up to so many tokens together."""

    def __init__(self, tokens: int) -> None:
        self._room = tokens
        self._kept: OrderedDict[tuple[int, ...], Any] = OrderedDict()  # the one that was used last comes last

    @property
    def tokens(self) -> int:
        """Tokens that are kept."""
        return sum(map(len, self._kept))

    def find(self, prompt: Sequence[int]) -> Optional[Part]:
        """The longest beginning of `prompt` that is kept, but for its last token: its logits are wanted."""
        best, length = None, LEAST_TOKENS - 1
        for tokens in self._kept:
            common = common_tokens(tokens, prompt)
            if common > length:
                best, length = tokens, common
        if best is None:
            return None
        self._kept.move_to_end(best)
        return Part(self._kept[best], 0, 0, length)

    def wants(self, tokens: Sequence[int]) -> bool:
        """Whether these would be kept: they are no beginning of what is, and fit."""
        if not LEAST_TOKENS <= len(tokens) <= self._room:
            return False
        return not any(tuple(tokens) == kept[: len(tokens)] for kept in self._kept)

    def keep(self, tokens: Sequence[int], cache: Any) -> None:
        """Keep a cache of one row that holds `tokens`; what they continue, or what is oldest, goes."""
        new = tuple(tokens)
        for kept in [kept for kept in self._kept if kept == new[: len(kept)]]:
            del self._kept[kept]
        self._kept[new] = cache
        while len(self._kept) > CONVERSATIONS or self.tokens > self._room:
            self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()


def common_tokens(known: Sequence[int], prompt: Sequence[int]) -> int:
    """How many tokens both begin with, but for the prompt's last."""
    most = min(len(known), len(prompt) - 1)
    return next((n for n in range(most) if known[n] != prompt[n]), most)
