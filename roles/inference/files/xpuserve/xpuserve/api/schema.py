"""Request bodies to continue a text or a conversation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
)

from xpuserve import structured
from xpuserve.api.conversation import MAX_TOOLS, ChatMessage, Choice, Text, Tool
from xpuserve.engine.request import SamplingParams
from xpuserve.structured import Asked

MAX_ANSWERS = 8  # answers to one prompt
MAX_PROMPTS = 16  # answers in one request for completions
MAX_LOGPROBS = 20  # alternatives reported beside the chosen token
MAX_BIASES = 300
MAX_STOPS, MAX_STOP_TOKENS = 64, 64
MAX_SALT = 256

# Fields of OpenAI's API, and of other servers', that would change the answer and are not supported here, or by only one
# kind of request: each with the values that request the default behaviour. Null always does.
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


def name_not_offered(fields: dict[str, tuple[Any, ...]]) -> Callable[[dict[str, Any]], None]:
    """A function that adds the fields to a model's JSON schema."""

    def write(schema: dict[str, Any]) -> None:
        for name, values in fields.items():
            if name not in schema["properties"]:  # fields supported by one kind of request and not by another
                schema["properties"][name] = {"enum": [None, *values], "description": "No other value is supported."}

    return write


def first_not_offered(asked: Mapping[str, Any], fields: Mapping[str, tuple[Any, ...]]) -> Optional[str]:
    """The first of the fields whose value is not one of the accepted ones."""
    for name, value in asked.items():
        # 0 is not False and 1 not True: in JSON they are different requests.
        neutral = [item for item in fields.get(name, (value,)) if type(item) is type(value)]
        if value is not None and value not in neutral:
            return name
    return None


def _token_ids(bias: dict[str, float]) -> dict[str, float]:
    if not all(key.isdecimal() and key.isascii() and len(key) < 10 for key in bias):
        raise ValueError("its keys must be token ids")
    return bias


def _stops(value: Any) -> Any:
    """Validate stop sequences, in either form."""
    found = value if isinstance(value, list) else [value]
    if len(found) > MAX_STOPS:
        raise ValueError(f"there are {len(found)} stop sequences, and {MAX_STOPS} is the maximum")
    if value is not None and not all(isinstance(stop, str) and stop for stop in found):
        raise ValueError("it must be a non-empty string, or a list of them")
    return value


def _prompts(value: Any) -> Any:
    """Validate prompts."""
    if not isinstance(value, (str, list)):
        raise ValueError("it must be a string, a list of token ids, or a list of those")
    if isinstance(value, list):
        if not value:
            raise ValueError("the list is empty")
        if len({type(each) for each in value}) > 1 or not isinstance(value[0], (str, int, list)):
            raise ValueError("its items must be all strings, all token ids, or all lists of token ids")
        if not isinstance(value[0], int) and len(value) > MAX_PROMPTS:
            raise ValueError(f"there are {len(value)} prompts, and {MAX_PROMPTS} is the maximum in one request")
    return value


def _template_values(values: dict[str, Any]) -> dict[str, Any]:
    for name in values:
        if not name.isidentifier() or name.startswith(_RESERVED):
            raise ValueError(f"{name!r} cannot be set by the client")
    return values


# Arguments of chat templates that only the service sets, by the beginning of their names, and those that transformers
# would take for its own options.
_RESERVED = (
    *("_", "messages", "conversation", "tools", "documents", "chat_template", "add_generation_prompt", "bos_", "eos_"),
    *("continue_final_message", "tokenize", "padding", "truncation", "max_length", "return_", "raise_", "strftime_"),
)
_StopText = Annotated[Text, Field(min_length=1)]
TokenId = Annotated[int, Field(ge=0, lt=2**31)]
_TokenIds = Annotated[list[TokenId], Field(min_length=1)]
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
_Stop = Annotated[Union[_StopText, Annotated[list[_StopText], Field(max_length=MAX_STOPS)]], BeforeValidator(_stops)]
_Prompt = Annotated[
    Union[
        Text,
        _TokenIds,
        Annotated[list[Text], Field(min_length=1, max_length=MAX_PROMPTS)],
        Annotated[list[_TokenIds], Field(min_length=1, max_length=MAX_PROMPTS)],
    ],
    BeforeValidator(_prompts),
]


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(strict=True)

    include_usage: Optional[bool] = None


class CompletionBase(BaseModel):
    """What both kinds of completion take. A field of NOT_OFFERED is refused; others that are not here are ignored, as
    vLLM and llama.cpp do: clients send many that mean nothing to a server of one model.
    """

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra=name_not_offered(NOT_OFFERED))

    model: Optional[Text] = Field(default=None, description="the served model, if omitted")
    stream: Optional[bool] = None
    stream_options: Optional[StreamOptions] = None
    temperature: Optional[float] = Field(default=None, ge=0, le=2)
    top_p: Optional[float] = Field(default=None, gt=0, le=1)
    top_k: Optional[int] = Field(default=None, ge=-1, le=2**31 - 1, description="0 or -1: all tokens")
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
    seed: Optional[int] = Field(default=None, ge=-(2**63), lt=2**63, description="below 0: a new one each time")
    n: Optional[int] = Field(default=None, ge=1, le=MAX_ANSWERS)
    cache_salt: Optional[Annotated[Text, Field(min_length=1, max_length=MAX_SALT)]] = Field(
        default=None, description="only requests with the same one share a cached prompt; not every engine has it"
    )
    logit_bias: Optional[_Bias] = Field(default=None, description="by token id, as text; not every engine has it")
    response_format: Optional[_ResponseFormat] = None
    structured_outputs: Optional[dict[str, Any]] = Field(default=None, description="json, regex, choice or grammar")
    guided_json: Optional[Union[dict[str, Any], Text]] = None
    guided_regex: Optional[Text] = None
    guided_choice: Optional[list[Text]] = None
    guided_grammar: Optional[Text] = Field(default=None, description="Lark or GBNF; not every engine has it")
    json_schema: Optional[dict[str, Any]] = None
    grammar: Optional[Text] = Field(default=None, description="as guided_grammar")

    @field_validator("stream_options")
    @classmethod
    def _streams(cls, value: Optional[StreamOptions], info: ValidationInfo) -> Optional[StreamOptions]:
        if value is not None and not info.data.get("stream"):
            raise ValueError("it requires stream: true")
        return value

    def not_offered(self) -> Optional[str]:
        """The first field that requests an unsupported feature."""
        return first_not_offered(self.model_extra or {}, NOT_OFFERED)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with the token counts."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def answers(self) -> int:
        """Number of answers to each prompt."""
        return self.n or 1

    @property
    def alternatives(self) -> Optional[int]:
        """Number of alternatives to report for each token of the answer; None for no log probabilities at all."""
        raise NotImplementedError

    def wants(self, form: Optional[Asked]) -> dict[str, str]:
        """Requested features that not every engine has, each with the field that requests it."""
        found = {name: name for name in ("cache_salt", "logit_bias") if getattr(self, name)}
        if form:
            found["grammar" if form.output.kind == "grammar" else "structured_outputs"] = form.where
        if self.alternatives is not None:
            found["logprobs"] = "logprobs"
        if self.alternatives:
            found["top_logprobs"] = "top_logprobs"
        if self.tells_prompt:
            found["prompt_logprobs"] = "echo"
        return found

    @property
    def tells_prompt(self) -> bool:
        """Whether to report log probabilities of the prompt's tokens, too."""
        return False

    @property
    def structured(self) -> Optional[Asked]:
        """The requested form of the answers, not yet validated. Raises StructuredOutputError."""
        wanted = structured.asked({name: getattr(self, name) for name in structured.FIELDS})
        for name in ("ignore_eos", "min_tokens") if wanted else ():
            if getattr(self, name):
                raise structured.StructuredOutputError(name, "a structured answer ends with its structure")
        return wanted

    def sampling(
        self, max_tokens: int, answer: int, defaults: Mapping[str, Any], form: Optional[Asked]
    ) -> SamplingParams:
        """The sampling of the answer with that number; each answer has its own seed."""
        asked = {name: getattr(self, name) for name in _SAMPLED if getattr(self, name) is not None}
        chosen = {**defaults, **asked}
        chosen["top_k"] = max(0, chosen.get("top_k", 0))
        if self.seed is not None and self.seed >= 0:
            chosen["seed"] = self.seed + answer
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        bias = tuple((int(token), add) for token, add in (self.logit_bias or {}).items())
        return SamplingParams(
            max_tokens,
            stop=stop,
            stop_token_ids=tuple(self.stop_token_ids or ()),
            logit_bias=bias,
            structured=form.output if form else None,
            logprobs=self.alternatives,
            prompt_logprobs=self.tells_prompt,
            **chosen,
        )


# Fields of a request with the same name as in SamplingParams.
_SAMPLED = (
    *("temperature", "top_p", "top_k", "min_p", "ignore_eos", "min_tokens"),
    *("repetition_penalty", "presence_penalty", "frequency_penalty"),
)


class ChatRequest(CompletionBase):
    """The body of /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    tools: Optional[list[Tool]] = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Optional[Choice] = Field(default=None, description="auto, if there are tools")
    parallel_tool_calls: Optional[bool] = None
    chat_template_kwargs: Optional[Annotated[dict[str, Any], AfterValidator(_template_values)]] = Field(
        default=None, description="extra arguments for the model's chat template"
    )
    reasoning_effort: Optional[Literal["none", "minimal", "low", "medium", "high", "xhigh"]] = Field(
        default=None, description="for models with optional reasoning; others ignore it"
    )
    continue_final_message: Optional[bool] = Field(default=None, description="the assistant's")
    add_generation_prompt: Optional[bool] = Field(default=None, description="false with continue_final_message only")
    logprobs: Optional[bool] = Field(default=None, description="not every engine has it")
    top_logprobs: Optional[int] = Field(default=None, ge=0, le=MAX_LOGPROBS, description="not every engine has it")

    @field_validator("top_logprobs")
    @classmethod
    def _has_logprobs(cls, value: Optional[int], info: ValidationInfo) -> Optional[int]:
        if value and not info.data.get("logprobs"):
            raise ValueError("it requires logprobs: true")
        return value

    @field_validator("add_generation_prompt")
    @classmethod
    def _has_a_turn(cls, value: Optional[bool], info: ValidationInfo) -> Optional[bool]:
        if value is not None and value is bool(info.data.get("continue_final_message")):
            raise ValueError("add_generation_prompt and continue_final_message exclude each other")
        return value

    @property
    def alternatives(self) -> Optional[int]:
        """See CompletionBase."""
        return (self.top_logprobs or 0) if self.logprobs else None


class CompletionRequest(CompletionBase):
    """The body of /v1/completions."""

    prompt: _Prompt
    logprobs: Optional[int] = Field(default=None, ge=0, le=MAX_LOGPROBS, description="not every engine has it")
    echo: Optional[bool] = Field(
        default=None, description="begin the answer with the prompt's text; with logprobs not every engine has it"
    )

    @property
    def alternatives(self) -> Optional[int]:
        """See CompletionBase."""
        return self.logprobs

    @property
    def tells_prompt(self) -> bool:
        """See CompletionBase."""
        return bool(self.echo) and self.logprobs is not None

    @property
    def prompts(self) -> list[Union[str, list[int]]]:
        """The texts to continue, or their token ids."""
        if isinstance(self.prompt, str) or isinstance(self.prompt[0], int):
            return [self.prompt]
        return list(self.prompt)
