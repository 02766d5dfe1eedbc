"""What an engine library has to offer the service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from typing import Optional

from xpuserve.engine.request import Message, Sampling


class EngineError(Exception):
    """The engine cannot do what was asked; the message is for the operator."""


class Tokenizer(ABC):
    """Text to token ids and back, with the model's own special tokens."""

    bos_id: Optional[int]
    eos_id: Optional[int]

    @abstractmethod
    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; with `special`, what the model wants around a text (such as BOS) is added."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens; bytes that are no whole UTF-8 become U+FFFD."""

    @abstractmethod
    def render(self, messages: Sequence[Message]) -> Optional[str]:
        """The conversation in the tokenizer's chat template, or None where it has no template.

        Raises PromptError when the template refuses the conversation.
        """


class Backend(ABC):
    """One loaded model on one device. Only the engine's thread calls load() and generate()."""

    tokenizer: Tokenizer

    @abstractmethod
    def load(self) -> None:
        """Read the weights into the device's memory and set `tokenizer`."""

    @abstractmethod
    def generate(self, prompt: Sequence[int], sampling: Sampling) -> Generator[Optional[int], None, None]:
        """Yield at most `sampling.max_tokens` token ids and end where the model ends its answer.

        A step that gives no token, such as a part of a long prompt, yields None: after every step the engine looks
        whether anybody still waits. The end-of-answer token is not yielded. Closing the generator cancels the request
        and frees what it held.
        """
