"""What an engine library has to offer the service."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from xpuserve.engine.request import PLAIN, ChatOptions, Message, SamplingParams
from xpuserve.engine.runner import OneAtATime, Runner, Tokens


class EngineError(Exception):
    """The engine cannot do what was asked; the message is for the operator."""


class EngineLostError(EngineError):
    """The engine's process ended or hung, and what was on its device is gone."""


class Tokenizer(ABC):
    """Text to token ids and back, with the model's own special tokens."""

    bos_id: Optional[int]
    eos_id: Optional[int]
    template: str = ""  # the chat template's source; empty where there is none

    @abstractmethod
    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`; with `special`, what the model wants around a text (such as BOS) is added."""

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens; bytes that are no whole UTF-8 become U+FFFD."""

    def pieces(self) -> Sequence[Union[str, bytes]]:
        """The tokens by their ids, as the library's vocabulary has them; empty where it does not tell."""
        return ()

    @abstractmethod
    def render(self, messages: Sequence[Message], options: ChatOptions = PLAIN) -> Optional[str]:
        """The conversation in the tokenizer's chat template, or None where it has no template.

        Raises PromptError when the template refuses the conversation.
        """


@dataclass(frozen=True)
class Part:
    """Columns `start` to `end` of one row of a cache."""

    cache: Any
    row: int
    start: int
    end: int


class Model(ABC):
    """A causal language model that reads and writes its key-value cache in rows, which is what batching needs.

    A cache has as many columns as tokens were read into it, those that pad a row included. Arrays are numpy's.
    These methods raise OutOfMemoryError, after which the caches they were given are as they were.
    """

    stop_ids: frozenset[int]
    room: int = 0  # columns that memory is taken for behind the last of a cache that grows

    @abstractmethod
    def forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """Read some tokens of every row: the logits after each row's last, as 32-bit floats, and the longer cache.

        `ids` and `positions` are [rows, tokens]; `mask` is [rows, columns + tokens], false where a row is padded. The
        cache that is given, None for a new row, may share memory with the one that is returned, but holds what it held.
        """

    @abstractmethod
    def every(self, ids: Any, positions: Any, mask: Any, cache: Any) -> tuple[Any, Any]:
        """The same for one row, with the logits after each of its tokens, [tokens, vocabulary]."""

    @abstractmethod
    def gather(self, parts: Sequence[Part], *, grows: bool) -> Any:
        """A cache with each part as a row, padded with zeros on the left to the longest.

        It is a copy: it shares no memory with what it was made from. `grows` says that it will be decoded further.
        """

    @abstractmethod
    def cache_tokens(self) -> int:
        """How many tokens' cache the device's free memory holds, as it is now."""

    @abstractmethod
    def free(self) -> None:
        """Give memory that is not in use back to the device."""


class Backend(ABC):
    """One loaded model on one device. Only the engine's thread calls its methods, and its tokenizer's."""

    tokenizer: Tokenizer
    # What requests may ask for and not every engine has: logit_bias, logprobs, top_logprobs, prompt_logprobs,
    # structured_outputs, grammar.
    offers: frozenset[str] = frozenset()
    # Whether the service outlives the engine's end, and may load it again.
    restartable = False

    @abstractmethod
    def load(self) -> None:
        """Read the weights into the device's memory and set `tokenizer`."""

    def await_tokenizer(self) -> None:  # noqa: B027 - most load it with all else
        """Return when the tokenizer is loaded beside the model, or will not be; on any thread."""

    def second_tokenizer(self) -> Tokenizer:
        """A tokenizer for another thread, at the same time; the same one where two threads may use it."""
        return self.tokenizer

    def runner(self) -> Runner:
        """What steps requests through the loaded model; unless a backend has better, one request at a time."""
        return OneAtATime(self.generate)

    @property
    def lost(self) -> bool:
        """Whether what was loaded is gone."""
        return False

    @property
    def process(self) -> int:
        """The process that the model is loaded in, if it is another; 0 is this one, or none."""
        return 0

    def when_lost(self, call: Callable[[], None]) -> None:  # noqa: B027 - what is in this process is never lost
        """Call this, on any thread, when what is loaded now is gone."""

    def check(self) -> None:  # noqa: B027 - as above
        """Raise EngineLostError if what was loaded is gone."""

    def close(self) -> None:  # noqa: B027 - it goes with this process
        """Give back what was loaded."""

    def generate(self, prompt: Sequence[int], sampling: SamplingParams) -> Tokens:
        """Yield tokens, at most `sampling.max_tokens`, and end where the model ends its answer.

        A step that gives no token, such as a part of a long prompt, yields None, or tokens of the prompt where they are
        asked for: after every step the engine looks whether anybody still waits. The end-of-answer token is not
        yielded. Closing the generator cancels the request and frees what it held.
        """
        raise NotImplementedError
