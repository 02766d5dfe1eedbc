"""Keep people's text plain: a model's special tokens in it have no effect."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Optional, Union

from xpuserve.engine.backend import Tokenizer
from xpuserve.engine.prompts import PromptError
from xpuserve.engine.request import PLAIN, ChatOptions, Message
from xpuserve.engine.vocabulary import special_texts

# Placeholders for special tokens while a conversation is rendered: private-use characters.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"
_STAND_IN = re.compile(f"{_OPEN}([0-9]+){_CLOSE}")


class PlainText(Tokenizer):
    """A tokenizer for conversations whose messages went through `hidden`.

    A model's marks, such as <|im_end|>, are texts that its tokenizer reads as one token.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.bos_id, self.eos_id, self.template = tokenizer.bos_id, tokenizer.eos_id, tokenizer.template
        self._marks = sorted(special_texts(tokenizer), key=len, reverse=True)  # one may begin with another
        self._any = re.compile("|".join(map(re.escape, self._marks))) if self._marks else None

    def hidden(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, with a placeholder for each mark in people's text; `encode` reverses that."""
        return [
            replace(
                message,
                content=self._hide(message.content),
                thought=self._hide(message.thought),
                calls=tuple(replace(call, arguments=self._hide(call.arguments)) for call in message.calls),
            )
            for message in messages
        ]

    def hidden_tools(self, tools: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
        """The same for tools: their descriptions and parameters are people's text too. Raises PromptError."""
        try:
            return tuple([self._hide_within(tool) for tool in tools])
        except RecursionError:
            raise PromptError("a tool's parameters are nested too deep") from None

    def _hide_within(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {self._hide(name): self._hide_within(each) for name, each in value.items()}
        if isinstance(value, (list, tuple)):
            return [self._hide_within(each) for each in value]
        return self._hide(value) if isinstance(value, str) else value

    def _hide(self, text: str) -> str:
        text = text.replace(_OPEN, "").replace(_CLOSE, "")
        if self._any is None:
            return text
        return self._any.sub(lambda found: f"{_OPEN}{self._marks.index(found[0])}{_CLOSE}", text)

    def encode(self, text: str, *, special: bool) -> list[int]:
        """See Tokenizer. Hidden marks are encoded as their letters."""
        first, *rest = _STAND_IN.split(text)
        ids = self._tokenizer.encode(first, special=special)
        for number, after in zip(rest[::2], rest[1::2]):
            mark = self._marks[int(number)]
            for part in (mark[:1], mark[1:], after):  # no part of a mark is a mark
                ids = ids + self._tokenizer.encode(part, special=False) if part else ids
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """See Tokenizer."""
        return self._tokenizer.decode(ids)

    def pieces(self) -> Sequence[Union[str, bytes]]:
        """See Tokenizer."""
        return self._tokenizer.pieces()

    def render(self, messages: Sequence[Message], options: ChatOptions = PLAIN) -> Optional[str]:
        """See Tokenizer."""
        return self._tokenizer.render(messages, options)
