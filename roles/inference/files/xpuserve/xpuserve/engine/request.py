"""What travels between the web side and the engine's thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from xpuserve.structured import StructuredOutput


@dataclass(frozen=True)
class ToolCall:
    """A tool that the model called; `arguments` is JSON, as text."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation; `role` is system, user, assistant or tool.

    `calls` and `thought` are an assistant's, `call` is the id of the call that a tool's content answers.
    """

    role: str
    content: str
    calls: tuple[ToolCall, ...] = ()
    thought: str = ""
    call: str = ""
    name: str = ""


@dataclass(frozen=True)
class ChatOptions:
    """What makes a prompt beside its messages: tools, as OpenAI's API has them, and what the chat template gets more.

    `continues` says that the last message is the assistant's, and the answer goes on where that ends. `answer` is how
    tools may be used: instead of text, or always, or instead of an answer whose form the client has chosen; with
    `thinks`, the model may think aloud first.
    """

    tools: tuple[Mapping[str, Any], ...] = ()
    template: Mapping[str, Any] = field(default_factory=dict)
    continues: bool = False
    answer: str = "text"  # or call, or form
    thinks: bool = True


PLAIN = ChatOptions()


@dataclass(frozen=True)
class SamplingParams:
    """How tokens are chosen; every default but the temperature changes nothing. Temperature 0 takes the likeliest
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
    min_tokens: int = 0  # that come before the answer may end
    seed: Optional[int] = None
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()  # that end the answer beside the model's own
    logit_bias: tuple[tuple[int, float], ...] = ()  # token ids, and what is added to their logits
    structured: Optional[StructuredOutput] = None  # the form that the answer must have, which was checked
    logprobs: Optional[int] = None  # how many likely tokens are told beside the chosen one; None: not even that one
    prompt_logprobs: bool = False  # whether the same is told of the prompt's tokens


@dataclass(frozen=True)
class Token:
    """A token of an answer. Its log probability, and the likeliest tokens with theirs, where the request asks for them:
    as the model has them, before penalties, bias and temperature.
    """

    id: int
    logprob: Optional[float] = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True)
class PromptTokens:
    """The next tokens of a prompt, in the same way; of its first nobody knows how likely it is."""

    tokens: Sequence[Token]


@dataclass(frozen=True)
class TokenText:
    """The same for the client. Bytes that are no whole character are U+FFFD; `offset` is where the token's text begins
    in the answer, or in the prompt.
    """

    text: str
    logprob: Optional[float]
    top: tuple[tuple[str, float], ...]
    offset: int


@dataclass(frozen=True)
class Piece:
    """Some more text of the answer, and the tokens that it is of, where the request asks for log probabilities; or,
    before it, tokens of the prompt.
    """

    text: str
    tokens: tuple[TokenText, ...] = ()
    prompt: tuple[TokenText, ...] = ()


@dataclass(frozen=True)
class Finished:
    """The answer is complete: `reason` is stop (the model or a stop sequence ended it) or length."""

    reason: str
    tokens: int


@dataclass(frozen=True)
class Failed:
    """The request is not answered to its end: the engine failed, or the server stops (`code` shutting_down)."""

    message: str
    code: str = "engine_error"


Event = Union[Piece, Finished, Failed]


@dataclass
class Times:
    """A request's way through the engine, by the monotonic clock; 0 is not yet."""

    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0
    first: float = 0.0
    last: float = 0.0
    tokens: int = 0
    complete: bool = False
    cached: Optional[int] = None  # tokens of the prompt that an earlier request had left in the cache, if that is known


@dataclass(eq=False)
class Request:
    """One prompt on its way through the engine; `deliver` is called on the engine's thread."""

    id: str
    prompt: list[int]
    sampling: SamplingParams
    deliver: Callable[[Event], None]
    continues: bool = False  # the answer's text goes on where the prompt's ends
    cancelled: threading.Event = field(default_factory=threading.Event)
    times: Times = field(default_factory=Times)
    client: str = ""  # whose it is: the name of a key, or else an address
    weight: float = 1.0  # of that client, among others that wait
    key: str = ""  # the name of the key, if there are keys
    low_priority: bool = False  # it waits until no other does
    salt: str = ""  # only requests with the same one share what the cache has of a prompt
    markers: Sequence[str] = ()  # special tokens that are text of the answer
    together: Sequence[Request] = field(default=(), repr=False)  # the requests that make one reply with it

    @property
    def begun(self) -> bool:
        """Whether the device has worked on the reply."""
        return any(each.times.started for each in (self, *self.together))
