"""The OpenAPI document: the answers of each page, refusals included."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Optional, Union

from fastapi import FastAPI
from pydantic import BaseModel, Field

FinishReason = Literal["stop", "length", "tool_calls"]


class ErrorDetail(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: Optional[str] = Field(description="the wrong field of the request")
    code: Optional[str]


class Error(BaseModel):
    """A refusal or a failure."""

    error: ErrorDetail


class Status(BaseModel):
    """How the service is doing."""

    status: str


class Ready(Status):
    """Whether it answers requests, and how: together (on), one at a time (off), or one at a time because they came out
    otherwise together (degraded); null is not known yet.
    """

    batching: Optional[Literal["on", "off", "degraded"]]


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "xpuserve"
    max_model_len: int = Field(description="tokens of prompt and answer together, or of a text to embed or rank")


class Models(BaseModel):
    """All models that are served."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class Usage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class CalledFunction(BaseModel):
    """What is to be called, and with which arguments, as JSON."""

    name: str
    arguments: str


class ToolCall(BaseModel):
    """A call of a tool that the request offered."""

    id: str
    type: Literal["function"]
    function: CalledFunction


class ChatAnswer(BaseModel):
    """The model's turn."""

    role: Literal["assistant"]
    content: Optional[str] = Field(description="null if the answer has only calls")
    reasoning_content: Optional[str] = Field(default=None, description="the model's reasoning before the answer")
    tool_calls: Optional[list[ToolCall]] = None


class Logprob(BaseModel):
    """A token that was chosen or could have been; `bytes` are not known of part of a character."""

    token: str
    logprob: float
    bytes: Optional[list[int]]


class ChosenLogprob(Logprob):
    """A token of the answer."""

    top_logprobs: list[Logprob]


class ChatLogprobs(BaseModel):
    """How likely the tokens of a turn were, before penalties, bias and temperature."""

    content: list[ChosenLogprob]
    refusal: None


class TextLogprobs(BaseModel):
    """The same for a text, each list with one item for each token; null of a prompt's first."""

    tokens: list[str]
    token_logprobs: list[Optional[float]]
    top_logprobs: Optional[list[Optional[dict[str, float]]]]
    text_offset: list[int]


class ChatChoice(BaseModel):
    """One of the answers."""

    index: int
    message: ChatAnswer
    logprobs: Optional[ChatLogprobs]
    finish_reason: FinishReason


class ChatCompletion(BaseModel):
    """The reply to a conversation."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(BaseModel):
    """One of the answers."""

    index: int
    text: str
    logprobs: Optional[TextLogprobs]
    finish_reason: FinishReason


class Completion(BaseModel):
    """The reply to a text."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class Tokens(BaseModel):
    """The token ids of a text."""

    count: int
    max_model_len: int
    tokens: list[int]


class DetokenizedText(BaseModel):
    """The text of token ids."""

    prompt: str


class TokenizerInfo(BaseModel):
    """What a client needs to count tokens as the model does; null is what the model does not have."""

    bos_token: Optional[str]
    eos_token: Optional[str]
    chat_template: Optional[str]
    model_max_length: int


class TextUsage(BaseModel):
    """Token counts."""

    prompt_tokens: int
    total_tokens: int


class Embedding(BaseModel):
    """The vector of a text; with encoding_format base64, as text."""

    object: Literal["embedding"]
    index: int
    embedding: Union[list[float], str]


class Embeddings(BaseModel):
    """The vectors of all texts of a request, in their order."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: TextUsage


class RankedText(BaseModel):
    """The text of a document."""

    text: str


class Ranked(BaseModel):
    """A document's place in the request, and its relevance, from 0 to 1."""

    index: int
    relevance_score: float
    document: Optional[RankedText] = None


class Ranking(BaseModel):
    """The documents that are most relevant to a query, the best first."""

    id: str
    model: str
    results: list[Ranked]
    usage: TextUsage


class ResponsesUsage(BaseModel):
    """Token counts."""

    input_tokens: int
    input_tokens_details: dict[str, int]
    output_tokens: int
    output_tokens_details: dict[str, int]
    total_tokens: int


class ResponsesAnswer(BaseModel):
    """The reply to /v1/responses: what the model said, thought and calls are items of `output`."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    error: None
    incomplete_details: Optional[dict[str, str]]
    instructions: Optional[str]
    max_output_tokens: Optional[int]
    metadata: dict[str, str]
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: None
    reasoning: dict[str, Optional[str]]
    store: Literal[False]
    temperature: Optional[float]
    text: dict[str, Any]
    tool_choice: Any
    tools: list[dict[str, Any]]
    top_p: Optional[float]
    truncation: Literal["disabled"]
    usage: ResponsesUsage


class AnthropicUsage(BaseModel):
    """Token counts."""

    input_tokens: int
    output_tokens: int


class AnthropicAnswer(BaseModel):
    """The reply to /v1/messages: what the model said, thought and calls are blocks of `content`."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "tool_use"]
    stop_sequence: None
    usage: AnthropicUsage


class AnthropicCount(BaseModel):
    """How many tokens a request has."""

    input_tokens: int


class AnthropicErrorDetail(BaseModel):
    """What went wrong."""

    type: str
    message: str


class AnthropicError(BaseModel):
    """A refusal or a failure."""

    type: Literal["error"]
    error: AnthropicErrorDetail


Responses = dict[Any, dict[str, Any]]
_RETRY = {"headers": {"Retry-After": {"schema": {"type": "integer"}, "description": "seconds"}}}

KEY_NEEDED: Responses = {401: {"model": Error, "description": "A valid API key is required if the service has keys."}}
UNKNOWN_MODEL: Responses = {404: {"model": Error, "description": "Unknown model."}}
FAILED: Responses = {500: {"model": Error, "description": "The service or its engine failed."}}
PROBE: Responses = {
    200: {"model": Status},
    503: {"model": Status, "description": "Not ready; the status gives the reason."},
}

READY: Responses = {
    200: {"model": Ready},
    503: {"model": Ready, "description": "Not ready; the status gives the reason."},
}


def anthropic(answers: Responses) -> Responses:
    """The same with errors in Anthropic's format."""
    return {
        status: {**answer, "model": AnthropicError} if answer.get("model") is Error else answer
        for status, answer in answers.items()
    }


def tokens() -> Responses:
    """Possible answers to a request for token ids or their text."""
    answers = completion(Error)
    return {status: answer for status, answer in answers.items() if status != 200}


def texts(reply: type[BaseModel]) -> Responses:
    """Possible answers to a request for embeddings or relevance."""
    return {200: {"model": reply}, **tokens()}


def completion(reply: type[BaseModel]) -> Responses:
    """Possible answers to a request for a completion."""
    # Without a schema: it would be that of each event, which only OpenAPI 3.2 supports.
    stream = {"example": 'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n'}
    return {
        200: {
            "model": reply,
            "description": "The whole reply; or, with `stream`, its parts as events, the last one `[DONE]`. A failure "
            "after the first part is an event with `error`.",
            "content": {"text/event-stream": stream},
        },
        400: {"model": Error, "description": "The request is malformed, or uses an unsupported feature."},
        413: {"model": Error, "description": "The body is too large."},
        429: {"model": Error, "description": "The queue is full.", **_RETRY},
        503: {"model": Error, "description": "The model is not ready yet, or the service stops.", **_RETRY},
        504: {"model": Error, "description": "No part of the answer was ready in time."},
        **KEY_NEEDED,
        **UNKNOWN_MODEL,
        **FAILED,
    }


def complete(app: FastAPI, model: str, texts: Mapping[str, str]) -> None:
    """Complete the application's document: the served models, keys, and 400 instead of 422.

    `texts` are the names of the models for embedding and rerank.
    """
    written = app.openapi
    own = {"EmbeddingsRequest": texts.get("embedding"), "RerankRequest": texts.get("rerank")}

    def openapi() -> dict[str, Any]:
        if not app.openapi_schema:
            document = written()
            for path in document["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
                    if "401" in operation["responses"]:
                        operation["security"] = [{"key": []}, {}]
            components = document["components"]
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for name in ("HTTPValidationError", "ValidationError"):
                components["schemas"].pop(name, None)
            for name, schema in components["schemas"].items():
                named = schema.get("properties", {}).get("model", {})
                if "anyOf" in named:  # a request's
                    served = {"enum": [None, own.get(name, model)], "description": named.get("description", "")}
                    schema["properties"]["model"] = served
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]
