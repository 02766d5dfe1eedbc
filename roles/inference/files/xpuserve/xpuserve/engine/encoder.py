"""Prompts to token ids, and back, for the web side: one at a time, with a tokenizer of its own."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Optional, Union

from xpuserve.engine import prompts
from xpuserve.engine.backend import Tokenizer
from xpuserve.engine.plain import PlainText
from xpuserve.engine.request import PLAIN, ChatOptions, Message


class Encoder:
    """The tokenizer of the loaded model; on any thread."""

    def __init__(self, prompt_format: str) -> None:
        self._prompt_format = prompt_format
        self._lock = threading.Lock()
        self.vocabulary = 0  # tokens of the tokenizer

    def use(self, tokenizer: Tokenizer) -> None:
        """Use the tokenizer of a model that was loaded."""
        plain, vocabulary = PlainText(tokenizer), len(tokenizer.pieces())
        with self._lock:
            self._tokenizer, self._plain, self.vocabulary = tokenizer, plain, vocabulary

    def encode_chat(self, messages: Sequence[Message], options: ChatOptions = PLAIN) -> list[int]:
        """Token ids of a conversation; raises PromptError."""
        with self._lock:
            options = replace(options, tools=self._plain.hidden_tools(options.tools))
            return prompts.encode_chat(self._plain, self._prompt_format, self._plain.hidden(messages), options)

    def encode_text(self, text: str, *, special: bool = True) -> list[int]:
        """Token ids of a plain text; `special` adds the model's tokens at its beginning. Raises PromptError."""
        with self._lock:
            if special:
                return prompts.encode_text(self._tokenizer, text)
            return self._tokenizer.encode(text, special=False)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids. Raises PromptError."""
        if not all(0 <= number < self.vocabulary for number in ids):
            raise prompts.PromptError(f"a token id is not below {self.vocabulary}, the size of the vocabulary")
        with self._lock:
            return self._tokenizer.decode(ids)

    def tokenizer_info(self) -> tuple[Optional[str], Optional[str], str]:
        """The model's tokens at the beginning and the end of a text, if any, and its chat template."""
        with self._lock:
            pieces = self._tokenizer.pieces()  # the whole vocabulary
            begin, end = (_written(pieces, number) for number in (self._tokenizer.bos_id, self._tokenizer.eos_id))
            return begin, end, self._tokenizer.template

    def begins_thought(self, prompt: Sequence[int]) -> bool:
        """Whether the answer to a prompt begins within a thought."""
        with self._lock:
            return prompts.begins_thought(self._tokenizer, prompt)


def _written(pieces: Sequence[Union[str, bytes]], number: Optional[int]) -> Optional[str]:
    """A special token as it is spelled in a text."""
    if number is None or number >= len(pieces):
        return None
    piece = pieces[number]
    return piece if isinstance(piece, str) else piece.decode("utf-8", "replace")
