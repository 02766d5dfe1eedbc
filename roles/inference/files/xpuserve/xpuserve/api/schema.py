"""What clients may send, and what they get back."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, WithJsonSchema, field_validator

from xpuserve import structured
from xpuserve.api import sse
from xpuserve.engine.request import Message, SamplingParams, TokenText

MAX_ANSWERS = 8  # to one prompt
MAX_PROMPTS = 16  # in one request for completions
MAX_LOGPROBS = 20  # tokens that are told beside the chosen one
MAX_BIASES = 300
MAX_STOP_TOKENS = 64
MAX_SALT = 256

# Fields of OpenAI's API, and of other servers', that would change the answer and are not offered here: each with the
# values that ask for what is done anyway. Null always does.
NOT_OFFERED: dict[str, tuple[Any, ...]] = {
    "add_generation_prompt": (True,),
    "allowed_token_ids": ([],),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1, 1.0),
    "mirostat": (0,),
    "modalities": (["text"],),
    "prompt_logprobs": (),
    "reasoning_effort": ("none",),
    "skip_special_tokens": (True,),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "truncate_prompt_tokens": (),
    "typical_p": (1, 1.0),
    "use_beam_search": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}


def _whole_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no text") from None
    return text


def _name_not_offered(schema: dict[str, Any]) -> None:
    for name, values in NOT_OFFERED.items():
        if name in schema["properties"]:  # what one kind of completion offers, and the other does not
            continue
        schema["properties"][name] = {"enum": [None, *values], "description": "Nothing else is offered."}


def _token_ids(bias: dict[str, float]) -> dict[str, float]:
    if not all(key.isdecimal() and key.isascii() and len(key) < 10 for key in bias):
        raise ValueError("its keys must be token ids")
    return bias


_Text = Annotated[str, AfterValidator(_whole_characters)]
_StopText = Annotated[_Text, Field(min_length=1)]
_Bias = Annotated[
    dict[str, Annotated[float, Field(ge=-100, le=100)]], Field(max_length=MAX_BIASES), AfterValidator(_token_ids)
]
_ResponseFormat = Annotated[
    dict[str, Any],
    WithJsonSchema(
        {
            "type": "object",
            "required": ["type"],
            "properties": {
                "type": {"enum": ["text", "json_object", "json_schema"]},
                "json_schema": {
                    "type": "object",
                    "required": ["schema"],
                    "properties": {"name": {"type": "string"}, "schema": {"type": "object"}},
                },
            },
        }
    ),
]
_Stop = Union[_StopText, Annotated[list[_StopText], Field(max_length=4)]]


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(strict=True)

    include_usage: Optional[bool] = None


class CompletionBase(BaseModel):
    """What both kinds of completion take. A field of NOT_OFFERED is refused; others that are not here are ignored, as
    vLLM and llama.cpp do: clients send many that mean nothing to a server of one model.
    """

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra=_name_not_offered)

    model: _Text
    stream: Optional[bool] = None
    stream_options: Optional[StreamOptions] = None
    temperature: Optional[float] = Field(default=None, ge=0, le=2)
    top_p: Optional[float] = Field(default=None, gt=0, le=1)
    top_k: Optional[int] = Field(default=None, ge=-1, le=2**31 - 1, description="0 or -1: of all tokens")
    min_p: Optional[float] = Field(default=None, ge=0, lt=1)
    repetition_penalty: Optional[float] = Field(default=None, ge=0.01, le=10)
    presence_penalty: Optional[float] = Field(default=None, ge=-2, le=2)
    frequency_penalty: Optional[float] = Field(default=None, ge=-2, le=2)
    max_tokens: Optional[int] = Field(default=None, ge=1)
    max_completion_tokens: Optional[int] = Field(default=None, ge=1)
    ignore_eos: Optional[bool] = None
    min_tokens: Optional[int] = Field(default=None, ge=0)
    stop_token_ids: Optional[list[Annotated[int, Field(ge=0)]]] = Field(default=None, max_length=MAX_STOP_TOKENS)
    stop: Optional[_Stop] = None
    seed: Optional[int] = Field(default=None, ge=-(2**63), lt=2**63)
    n: Optional[int] = Field(default=None, ge=1, le=MAX_ANSWERS)
    cache_salt: Optional[Annotated[_Text, Field(min_length=1, max_length=MAX_SALT)]] = Field(
        default=None, description="only requests with the same one share a cached prompt; not every engine has it"
    )
    logit_bias: Optional[_Bias] = Field(default=None, description="by token id, as text; not every engine has it")
    response_format: Optional[_ResponseFormat] = None
    structured_outputs: Optional[dict[str, Any]] = Field(default=None, description="json, regex, choice or grammar")
    guided_json: Optional[Union[dict[str, Any], _Text]] = None
    guided_regex: Optional[_Text] = None
    guided_choice: Optional[list[_Text]] = None
    guided_grammar: Optional[_Text] = Field(default=None, description="Lark or GBNF; not every engine has it")
    json_schema: Optional[dict[str, Any]] = None
    grammar: Optional[_Text] = Field(default=None, description="as guided_grammar")

    @field_validator("stream_options")
    @classmethod
    def _streams(cls, value: Optional[StreamOptions], info: ValidationInfo) -> Optional[StreamOptions]:
        if value is not None and not info.data.get("stream"):
            raise ValueError("it is for streamed answers: set stream to true")
        return value

    def not_offered(self) -> Optional[str]:
        """The first field that asks for something which is not offered."""
        for name, value in (self.model_extra or {}).items():
            # 0 is not False and 1 not True: in JSON they ask for different things.
            neutral = [item for item in NOT_OFFERED.get(name, (value,)) if type(item) is type(value)]
            if value is not None and value not in neutral:
                return name
        return None

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def answers(self) -> int:
        """How many answers to each prompt are asked for."""
        return self.n or 1

    @property
    def alternatives(self) -> Optional[int]:
        """How many likely tokens are to be told beside each of the answer's; None if nothing is to be told of any."""
        raise NotImplementedError

    @property
    def wants(self) -> dict[str, str]:
        """What not every engine has and is asked for, each with the field that asks for it."""
        found = {name: name for name in ("cache_salt", "logit_bias") if getattr(self, name)}
        if wanted := self.structured:
            found["grammar" if wanted.output.kind == "grammar" else "structured_outputs"] = wanted.where
        if self.alternatives is not None:
            found["logprobs"] = "logprobs"
        if self.alternatives:
            found["top_logprobs"] = "top_logprobs"
        return found

    @property
    def structured(self) -> Optional[structured.Asked]:
        """The form that answers are to have, unchecked; raises StructuredOutputError."""
        wanted = structured.asked({name: getattr(self, name) for name in structured.FIELDS})
        for name in ("ignore_eos", "min_tokens") if wanted else ():
            if getattr(self, name):
                raise structured.StructuredOutputError(name, "an answer of a given form ends where the form does")
        return wanted

    def sampling(self, max_tokens: int, answer: int, defaults: Mapping[str, Any]) -> SamplingParams:
        """How the tokens of the answer of that number are chosen; each answer has a seed of its own."""
        asked = {name: getattr(self, name) for name in _SAMPLED if getattr(self, name) is not None}
        chosen = {**defaults, **asked}
        chosen["top_k"] = max(0, chosen.get("top_k", 0))
        if self.seed is not None:
            chosen["seed"] = self.seed + answer
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        bias = tuple((int(token), add) for token, add in (self.logit_bias or {}).items())
        wanted = self.structured
        return SamplingParams(
            max_tokens,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            logit_bias=bias,
            structured=wanted.output if wanted else None,
            logprobs=self.alternatives,
            **chosen,
        )


# The fields of a request that SamplingParams has under the same name.
_SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p", "ignore_eos", "min_tokens"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(strict=True)

    type: Literal["text"]
    text: _Text


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant"]
    content: Union[_Text, list[TextPart]]
    tool_calls: Optional[Annotated[list[Any], Field(max_length=0)]] = None

    def as_message(self) -> Message:
        """The same for the engine; a developer's message is a system message."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class ChatRequest(CompletionBase):
    """The body of /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    logprobs: Optional[bool] = Field(default=None, description="not every engine has it")
    top_logprobs: Optional[int] = Field(default=None, ge=0, le=MAX_LOGPROBS, description="not every engine has it")

    @field_validator("top_logprobs")
    @classmethod
    def _has_logprobs(cls, value: Optional[int], info: ValidationInfo) -> Optional[int]:
        if value and not info.data.get("logprobs"):
            raise ValueError("it goes with logprobs: set that to true")
        return value

    @property
    def alternatives(self) -> Optional[int]:
        """See CompletionBase."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(CompletionBase):
    """The body of /v1/completions."""

    prompt: Union[_Text, Annotated[list[_Text], Field(min_length=1, max_length=MAX_PROMPTS)]]
    logprobs: Optional[int] = Field(default=None, ge=0, le=MAX_LOGPROBS, description="not every engine has it")

    @property
    def alternatives(self) -> Optional[int]:
        """See CompletionBase."""
        return self.logprobs

    @property
    def prompts(self) -> list[str]:
        """The texts to continue."""
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt


Tokens = Sequence[TokenText]


class Reply:
    """The JSON objects of a reply, whole or in pieces. A reply has one choice or several, numbered from 0."""

    prefix = "cmpl"
    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, request_id: str, created: int, model: str, *, include_usage: bool = False) -> None:
        self._common = {"id": f"{self.prefix}-{request_id}", "created": created, "model": model}
        # Who asks for usage finds the field in every chunk, and null in all but the last.
        self._usage: dict[str, Any] = {"usage": None} if include_usage else {}
        self._around: dict[int, tuple[bytes, bytes]] = {}  # of a choice's text, what is before and behind it in a chunk

    def whole(self, choices: list[tuple[str, Tokens, str]], usage: dict[str, int]) -> dict[str, Any]:
        """The complete reply, of texts, what is told of their tokens, and their finish reasons."""
        parts = [
            self._choice(n, self._whole_text(text), reason, tokens) for n, (text, tokens, reason) in enumerate(choices)
        ]
        return {**self._common, "object": self.whole_object, "choices": parts, "usage": usage}

    def first_chunks(self, choices: int) -> list[dict[str, Any]]:
        """What a stream opens with."""
        return []

    def chunk(
        self, choice: int, text: Optional[str], finish_reason: Optional[str] = None, tokens: Tokens = ()
    ) -> dict[str, Any]:
        """Some more text of a choice, or its end."""
        return self._chunk(self._choice(choice, self._chunk_text(text), finish_reason, tokens))

    def text_chunk(self, choice: int, text: str) -> bytes:
        """The chunk of some more text and nothing else, as JSON: all but the text is written once."""
        around = self._around.get(choice)
        if around is None:
            mark = uuid.uuid4().hex
            before, behind = sse.encoded(self.chunk(choice, mark)).split(sse.encoded(mark))
            around = self._around[choice] = before, behind
        return b"%b%b%b" % (around[0], sse.encoded(text), around[1])

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The token counts at the end of a stream that asked for them."""
        return {**self._common, "object": self.chunk_object, "choices": [], "usage": usage}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return {**self._common, "object": self.chunk_object, "choices": [choice], **self._usage}

    def _choice(
        self, index: int, text: dict[str, Any], finish_reason: Optional[str], tokens: Tokens = ()
    ) -> dict[str, Any]:
        logprobs = self._logprobs(tokens) if tokens else None
        return {"index": index, **text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _logprobs(self, tokens: Tokens) -> dict[str, Any]:
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            # Several tokens may have the same text; the likeliest counts.
            "top_logprobs": [dict(reversed(token.top)) for token in tokens] if tokens[0].top else None,
            "text_offset": [token.offset for token in tokens],
        }

    def _whole_text(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _chunk_text(self, text: Optional[str]) -> dict[str, Any]:
        return {"text": text or ""}


class ChatReply(Reply):
    """The same for a chat."""

    prefix = "chatcmpl"
    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def first_chunks(self, choices: int) -> list[dict[str, Any]]:
        """See Reply."""
        opening = {"delta": {"role": "assistant", "content": ""}}
        return [self._chunk(self._choice(n, opening, None)) for n in range(choices)]

    def _logprobs(self, tokens: Tokens) -> dict[str, Any]:
        content = [
            {**_told(token.text, token.logprob), "top_logprobs": [_told(*other) for other in token.top]}
            for token in tokens
        ]
        return {"content": content, "refusal": None}

    def _whole_text(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def _chunk_text(self, text: Optional[str]) -> dict[str, Any]:
        return {"delta": {} if text is None else {"content": text}}


def _told(text: str, logprob: float) -> dict[str, Any]:
    # Part of a character is U+FFFD, and the tokenizers do not say what its bytes are.
    return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}
