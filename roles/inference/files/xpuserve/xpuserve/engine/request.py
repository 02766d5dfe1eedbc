"""Data between the web side and the engine's thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional, Union

from xpuserve.structured import StructuredOutput


@dataclass(frozen=True)
class ToolCall:
    """A tool call of the model; `arguments` is JSON, as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is system, user, assistant or tool.

    `calls` and `thought` are an assistant's, `call` is the id of the call whose result is a tool's content.
    """

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    thought: str = ""
    call: str = ""
    name: str = ""


@dataclass(frozen=True)
class ChatOptions:
    """Inputs of a prompt beside its messages: tools, as in OpenAI's API, and extra arguments of the chat template.

    `continues`: the last message is the assistant's, and the answer continues it. `answer` says how tools may be
    used: calls may replace text (text), always (call), or calls may replace the client's form (form). With
    `thinks`, the model may think first.
    """

    tools: tuple[Mapping[str, Any], ...] = ()
    template: Mapping[str, Any] = field(default_factory=dict)
    continues: bool = False
    answer: str = "text"  # or call, or form
    thinks: bool = True


PLAIN = ChatOptions()


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen; every default except the temperature changes nothing. Temperature 0 takes the likeliest
    token every time.
    """

    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    ignore_eos: bool = False
    min_tokens: int = 0  # minimum number of tokens before the answer may end
    seed: Optional[int] = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()  # that end the answer, beside the model's own
    logit_bias: tuple[tuple[int, float], ...] = ()  # token ids, and the value added to their logits
    structured: Optional[StructuredOutput] = None  # the required form of the answer, validated
    logprobs: Optional[int] = None  # number of alternatives with log probabilities; None: not even the chosen token's
    prompt_logprobs: bool = False  # whether to report the same for the prompt's tokens


class Token(NamedTuple):
    """A token of an answer. With its log probability, and the likeliest tokens with theirs, if the request wants them:
    the model's own, before penalties, bias and temperature.
    """

    id: int
    logprob: Optional[float] = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class PromptTokens:
    """The next tokens of a prompt, in the same form; the first one has no probability."""

    tokens: Sequence[Token]


class TokenText(NamedTuple):
    """The same for the client. Bytes that are no whole character are U+FFFD; `offset` is the start of the token's text
    in the answer, or in the prompt.
    """

    text: str
    logprob: Optional[float]
    top: tuple[tuple[str, float], ...]
    offset: int


class Piece(NamedTuple):
    """Some more text of the answer, and its tokens, if the request wants log probabilities; or,
    before it, tokens of the prompt.
    """

    text: str
    tokens: tuple[TokenText, ...] = ()
    prompt: tuple[TokenText, ...] = ()


class Finished(NamedTuple):
    """The answer is complete: `reason` is stop (the model or a stop sequence ended it) or length."""

    reason: str
    tokens: int


class Failed(NamedTuple):
    """The request has no complete answer: the engine failed, or the server stops (`code` shutting_down)."""

    message: str
    code: str = "engine_error"


Event = Union[Piece, Finished, Failed]


@dataclass
class Times:
    """Times of a request's way through the engine, by the monotonic clock; 0 is not yet."""

    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    complete: bool = False
    cached: Optional[int] = None  # prompt tokens found in the cache, if known


@dataclass(eq=False)
class Request:
    """One prompt on its way through the engine; `deliver` is called on the thread that takes its results."""

    id: str
    prompt: list[int]
    sampling: SamplingParams
    deliver: Callable[[Event], None]
    continues: bool = False  # the answer continues the prompt's text
    cancelled: bool = False
    times: Times = field(default_factory=Times)
    client: str = ""  # its owner: the name of a key, or else an address
    weight: float = 1.0  # weight of that client in the queue
    key: str = ""  # the name of the key, if there are keys
    low_priority: bool = False  # low priority: waits until no other request does
    salt: str = ""  # only requests with the same salt share cached prompts
    markers: Sequence[str] = ()  # special tokens that are text of the answer
    together: Sequence[Request] = field(default=(), repr=False)  # the requests that form one reply with it

    @property
    def tokens(self) -> int:
        """The tokens of its prompt."""
        return len(self.prompt)

    @property
    def most_tokens(self) -> int:
        """Tokens of the prompt and of the longest answer."""
        return len(self.prompt) + self.sampling.max_tokens

    @property
    def begun(self) -> bool:
        """Whether the device has worked on the reply."""
        return any(each.times.started for each in (self, *self.together))
