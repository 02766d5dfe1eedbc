"""What clients may send, and what they get back."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from xpuserve.engine.request import Message


def _whole_characters(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is no text") from None
    return text


_Text = Annotated[str, AfterValidator(_whole_characters)]
_StopText = Annotated[_Text, Field(min_length=1)]
_Stop = Union[_StopText, Annotated[list[_StopText], Field(max_length=4)]]


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(strict=True)

    include_usage: bool = False


class CompletionBase(BaseModel):
    """What both kinds of completion take. Fields that clients send and that change nothing here are ignored;
    those that would change the answer are refused unless they ask for what is done anyway.
    """

    model_config = ConfigDict(strict=True)

    model: _Text
    stream: bool = False
    stream_options: Optional[StreamOptions] = None
    temperature: Optional[float] = Field(default=None, ge=0, le=2)
    top_p: Optional[float] = Field(default=None, gt=0, le=1)
    max_tokens: Optional[int] = Field(default=None, ge=1)
    stop: Optional[_Stop] = None
    seed: Optional[int] = Field(default=None, ge=-(2**63), lt=2**63)
    n: Optional[Literal[1]] = None
    presence_penalty: Optional[Literal[0]] = None
    frequency_penalty: Optional[Literal[0]] = None

    def stops(self) -> tuple[str, ...]:
        """The stop sequences."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())


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

    def as_message(self) -> Message:
        """The same for the engine; a developer's message is a system message."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class ChatRequest(CompletionBase):
    """The body of /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: Optional[int] = Field(default=None, ge=1)
    logprobs: Optional[Literal[False]] = None


class CompletionRequest(CompletionBase):
    """The body of /v1/completions."""

    prompt: _Text
    echo: Optional[Literal[False]] = None
    logprobs: None = None


def error_body(message: str, kind: str, *, param: Optional[str] = None, code: Optional[str] = None) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


class Reply:
    """The JSON objects of one answer, whole or in pieces."""

    whole_object = "text_completion"
    chunk_object = "text_completion"

    def __init__(self, request_id: str, created: int, model: str) -> None:
        self._common = {"id": request_id, "created": created, "model": model}

    def whole(self, text: str, finish_reason: str, usage: dict[str, int]) -> dict[str, Any]:
        """The complete answer."""
        choice = {"index": 0, **self._whole_text(text), "logprobs": None, "finish_reason": finish_reason}
        return {**self._common, "object": self.whole_object, "choices": [choice], "usage": usage}

    def first_chunks(self) -> list[dict[str, Any]]:
        """What a stream opens with."""
        return []

    def chunk(self, text: Optional[str], finish_reason: Optional[str] = None) -> dict[str, Any]:
        """Some more text, or the end."""
        choice = {"index": 0, **self._chunk_text(text), "logprobs": None, "finish_reason": finish_reason}
        return {**self._common, "object": self.chunk_object, "choices": [choice]}

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The token counts at the end of a stream that asked for them."""
        return {**self._common, "object": self.chunk_object, "choices": [], "usage": usage}

    def _whole_text(self, text: str) -> dict[str, Any]:
        return {"text": text}

    def _chunk_text(self, text: Optional[str]) -> dict[str, Any]:
        return {"text": text or ""}


class ChatReply(Reply):
    """The same for a chat."""

    whole_object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def first_chunks(self) -> list[dict[str, Any]]:
        """See Reply."""
        choice = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        return [{**self._common, "object": self.chunk_object, "choices": [choice]}]

    def _whole_text(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}

    def _chunk_text(self, text: Optional[str]) -> dict[str, Any]:
        return {"delta": {} if text is None else {"content": text}}
