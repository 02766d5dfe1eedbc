"""The interface of an engine library for the service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from xpuserve.engine.request import PLAIN, ChatOptions, Message, SamplingParams
from xpuserve.engine.runner import OneAtATime, Runner, Tokens


class EngineError(Exception):
    """The engine cannot do the request; the message is for the operator."""


class EngineLostError(EngineError):
    """The engine's process ended or hung, and its state on the device is lost."""


class Tokenizer(ABC):
    """Text to token ids and back, with the model's own special tokens."""

    bos_id: Optional[int]
    eos_id: Optional[int]
    template: str = ""  # the chat template's source; empty where there is none

    @abstractmethod
    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; `special` adds the model's own tokens around a text (such as BOS)."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens; bytes that are no complete UTF-8 become U+FFFD."""

    def pieces(self) -> Sequence[Union[str, bytes]]:
        """The tokens by their ids, in the library's vocabulary; empty if it does not tell."""
        return ()

    @abstractmethod
    def render(self, messages: Sequence[Message], options: ChatOptions = PLAIN) -> Optional[str]:
        """The conversation in the tokenizer's chat template, or None without a template.

        Raises PromptError if the template refuses the conversation.
        """


@dataclass(frozen=True)
class Part:
    """Columns `start` to `end` of one row of a cache."""

    cache: Any
    row: int
    start: int
    end: int


class Model(ABC):
    """A causal language model whose key-value cache has rows, as batching needs.

    A cache has a column for each token read into it, padding included. Arrays are numpy's.
    These methods raise OutOfMemoryError, and leave the caches that they were given unchanged.
    """

    stop_ids: frozenset[int]
    room: int = 0  # columns allocated behind the last one of a growing cache

    @abstractmethod
    def forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """Read tokens of every row: returns the logits after each row's last, as 32-bit floats, and the longer cache.

        `ids` and `positions` are [rows, tokens]; `mask` is [rows, columns + tokens], false for padding. The
        given cache (None for a new row) may share memory with the returned one, but keeps its content.
        """

    @abstractmethod
    def every(self, ids: Any, positions: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """The same for one row, with the logits after each of its tokens, [tokens, vocabulary]."""

    @abstractmethod
    def gather(self, parts: Sequence[Part], *, grows: bool) -> Any:
        """A cache with each part as a row, padded with zeros on the left to the longest.

        It is a copy and shares no memory with its sources. `grows` announces further decoding.
        """

    @abstractmethod
    def cache_tokens(self) -> int:
        """The number of tokens whose cache fits into the device's free memory now."""

    @abstractmethod
    def free(self) -> None:
        """Return unused memory to the device."""


class TextModels(ABC):
    """The embedding and the rerank model beside the chat model, of which one may be missing. They are not for the
    engine's thread: one other thread counts tokens, and another one computes.
    """

    @abstractmethod
    def count(self, texts: Sequence[str], query: Optional[str] = None) -> list[int]:
        """Tokens of each text for the embedding model or, with a query, of the query and each text for the other."""

    @abstractmethod
    def embed(self, texts: Sequence[str]) -> list[bytes]:
        """The embedding of each text, as little-endian 32-bit floats. Raises EngineLostError, OutOfMemoryError."""

    @abstractmethod
    def rank(self, query: str, texts: Sequence[str]) -> list[float]:
        """How relevant each text is to the query, from 0 to 1. Raises as `embed` does."""


class Backend(ABC):
    """One loaded model on one device. Only the engine's thread calls its methods, and its tokenizer's."""

    tokenizer: Tokenizer
    texts: Optional[TextModels] = None
    # Request features that not every engine has: logit_bias, logprobs, top_logprobs, prompt_logprobs,
    # structured_outputs, grammar.
    offers: frozenset[str] = frozenset()
    # Whether the service survives the engine's end, and may load it again.
    restartable = False

    @abstractmethod
    def load(self) -> None:
        """Read the weights into the device's memory and set `tokenizer`."""

    def await_tokenizer(self) -> None:  # noqa: B027 - most load it with all else
        """Return when the tokenizer is loaded beside the model, or has failed; on any thread."""

    def second_tokenizer(self) -> Tokenizer:
        """A tokenizer for another thread at the same time; the same one if two threads may share it."""
        return self.tokenizer

    def runner(self) -> Runner:
        """Steps requests through the loaded model; by default one request at a time."""
        return OneAtATime(self.generate)

    @property
    def lost(self) -> bool:
        """Whether the loaded model is lost."""
        return False

    @property
    def process(self) -> int:
        """The process of the model, if it is another one; 0 for this one, or none."""
        return 0

    def when_lost(self, call: Callable[[], None]) -> None:  # noqa: B027 - what is in this process is never lost
        """Register a callback, on any thread, for the loss of the loaded model."""

    def check(self) -> None:  # noqa: B027 - as above
        """Raise EngineLostError if the loaded model is lost."""

    def close(self) -> None:  # noqa: B027 - it goes with this process
        """Release what was loaded."""

    def generate(self, prompt: Sequence[int], sampling: SamplingParams) -> Tokens:
        """Yield tokens, at most `sampling.max_tokens`, up to the end of the model's answer.

        A step without a token, such as a part of a long prompt, yields None, or tokens of the prompt if the request
        wants them: after every step the engine checks whether the client still waits. The end-of-answer token is not
        yielded. Closing the generator cancels the request and frees its memory.
        """
        raise NotImplementedError
