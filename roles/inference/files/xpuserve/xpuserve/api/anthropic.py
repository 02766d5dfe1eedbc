"""Anthropic's Messages API, for clients that need it: the same core in another format."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from xpuserve.api import errors, sse
from xpuserve.api.conversation import MAX_TOOLS, Text, only_text
from xpuserve.api.replies import Asked, Choice, Object, Reply, TokenCounts, Tokens
from xpuserve.api.schema import MAX_STOPS
from xpuserve.dialects.base import ARGUMENTS, CALL, TEXT, THOUGHT, Part
from xpuserve.engine.request import Failed

_only_text = only_text(
    ("text", "tool_use", "tool_result", "thinking", "redacted_thinking"), "a list of blocks", piece="block"
)


class TextBlock(BaseModel):
    """Some text."""

    model_config = ConfigDict(strict=True)

    type: Literal["text"]
    text: Text


class UseBlock(BaseModel):
    """A call that the model made."""

    model_config = ConfigDict(strict=True)

    type: Literal["tool_use"]
    id: Text
    name: Text
    input: dict[str, Any]


class ResultBlock(BaseModel):
    """What came of it."""

    model_config = ConfigDict(strict=True)

    type: Literal["tool_result"]
    tool_use_id: Text
    content: Optional[Union[Text, list[TextBlock]]] = None


class ThoughtBlock(BaseModel):
    """What the model thought; it is not needed again."""

    model_config = ConfigDict(strict=True)

    type: Literal["thinking", "redacted_thinking"]


_Blocks = Annotated[
    Union[Text, list[Union[TextBlock, UseBlock, ResultBlock, ThoughtBlock]]], BeforeValidator(_only_text)
]


class AnthropicMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(strict=True)

    role: Literal["user", "assistant"]
    content: _Blocks


class AnthropicTool(BaseModel):
    """A function of the client's."""

    model_config = ConfigDict(strict=True)

    type: Optional[Literal["custom"]] = None
    name: str
    description: Optional[Text] = None
    input_schema: dict[str, Any]


class AnthropicChoice(BaseModel):
    """Which tools may be called."""

    model_config = ConfigDict(strict=True)

    type: Literal["auto", "any", "tool", "none"]
    name: Optional[str] = None
    disable_parallel_tool_use: Optional[bool] = None


class CountRequest(BaseModel):
    """The body of /v1/messages/count_tokens; fields that are not here are ignored."""

    model_config = ConfigDict(strict=True, extra="allow")

    model: Optional[Text] = Field(default=None, description="the served model, if omitted")
    messages: list[AnthropicMessage] = Field(min_length=1)
    system: Optional[Union[Text, list[TextBlock]]] = None
    tools: Optional[list[AnthropicTool]] = Field(default=None, max_length=MAX_TOOLS)
    tool_choice: Optional[AnthropicChoice] = None

    def as_chat(self) -> dict[str, Any]:
        """The same as the body of a chat."""
        messages: list[dict[str, Any]] = []
        if self.system:
            messages.append({"role": "system", "content": _text(self.system)})
        for message in self.messages:
            messages += _turns(message)
        choice = self.tool_choice
        named = {"type": "function", "function": {"name": choice.name or ""}} if choice else None
        choices = {"auto": "auto", "any": "required", "none": "none", "tool": named}
        return {
            "model": self.model,
            "messages": messages,
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "parameters": tool.input_schema,
                        **({"description": tool.description} if tool.description else {}),
                    },
                }
                for tool in self.tools or ()
            ]
            or None,
            "tool_choice": choices[choice.type] if choice else None,
            "parallel_tool_calls": False if choice and choice.disable_parallel_tool_use else None,
        }


class MessagesRequest(CountRequest):
    """The body of /v1/messages; fields that are not here are ignored."""

    max_tokens: int = Field(ge=1)
    stream: Optional[bool] = None
    stop_sequences: Optional[list[Annotated[Text, Field(min_length=1)]]] = Field(default=None, max_length=MAX_STOPS)
    temperature: Optional[float] = Field(default=None, ge=0, le=1)
    top_p: Optional[float] = Field(default=None, gt=0, le=1)
    top_k: Optional[int] = Field(default=None, ge=0, le=2**31 - 1)

    def as_chat(self) -> dict[str, Any]:
        """See CountRequest."""
        return {
            **super().as_chat(),
            "stream": self.stream,
            "max_completion_tokens": self.max_tokens,
            "stop": self.stop_sequences or None,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "top_k": self.top_k,
        }


def _turns(message: AnthropicMessage) -> list[dict[str, Any]]:
    """A turn as messages of a chat: there, each result is a separate message."""
    if isinstance(message.content, str):
        return [{"role": message.role, "content": message.content}]
    texts = [block.text for block in message.content if isinstance(block, TextBlock)]
    calls = [
        {"id": block.id, "function": {"name": block.name, "arguments": json.dumps(block.input)}}
        for block in message.content
        if isinstance(block, UseBlock)
    ]
    results = [
        {"role": "tool", "tool_call_id": block.tool_use_id, "content": _text(block.content or "")}
        for block in message.content
        if isinstance(block, ResultBlock)
    ]
    own: dict[str, Any] = {"role": message.role, "content": "".join(texts)}
    if calls:
        own["tool_calls"] = calls
    return [*results, *([own] if texts or calls or not results else [])]


def _text(content: Union[str, list[TextBlock]]) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content)


class AnthropicReply(Reply):
    """A message, and the events of its stream: a sequence of growing blocks."""

    done = b""

    def __init__(self, asked: Asked) -> None:
        super().__init__(asked)
        self._blocks: list[Object] = []
        self._open = False
        self._reason: Optional[str] = None

    @staticmethod
    def encode(data: Any) -> bytes:
        """See Reply."""
        return sse.named(data)

    def whole(self, choices: Sequence[Choice], usage: TokenCounts) -> Object:
        """See Reply."""
        self.more(0, choices[0].text, choices[0].tokens)
        self.end(0, choices[0].reason)
        for block in self._blocks:
            if block["type"] == "tool_use":
                block["input"] = _parsed(block["input"])
        return self._message(self._blocks, usage.prompt, usage.answers)

    def begin(self, choices: int) -> list[Object]:
        """See Reply."""
        return [{"type": "message_start", "message": self._message([], 0, 0)}]

    def more(self, choice: int, text: str, tokens: Tokens) -> list[Object]:
        """See Reply."""
        return self._events(self._fed(choice, text))

    def end(self, choice: int, reason: str) -> list[Object]:
        """See Reply."""
        events = self._events(self._finished(choice))
        called = any(block["type"] == "tool_use" for block in self._blocks)
        self._reason = "max_tokens" if reason == "length" else "tool_use" if called else "end_turn"
        return [*events, *self._stop()]

    def close(self, usage: TokenCounts) -> list[Object]:
        """See Reply."""
        delta = {"stop_reason": self._reason, "stop_sequence": None}
        counts = {"input_tokens": usage.prompt, "output_tokens": usage.answers}
        return [{"type": "message_delta", "delta": delta, "usage": counts}, {"type": "message_stop"}]

    def fail(self, event: Failed) -> list[Object]:
        """See Reply."""
        problem = errors.failure(event)
        return [errors.anthropic_body(problem.status_code, problem.body)]

    def _events(self, parts: Sequence[Part]) -> list[Object]:
        events: list[Object] = []
        for part in parts:
            kind = {TEXT: "text", THOUGHT: "thinking"}.get(part.kind, "tool_use")
            if part.kind == CALL or not self._open or self._blocks[-1]["type"] != kind:
                events += [*self._stop(), self._start(part)]
            if part.kind != CALL:
                events.append(self._grow(part))
        return events

    def _start(self, part: Part) -> Object:
        if part.kind == CALL:
            block: Object = {"type": "tool_use", "id": self._asked.call_id(), "name": part.text, "input": ""}
        elif part.kind == THOUGHT:
            block = {"type": "thinking", "thinking": "", "signature": ""}
        else:
            block = {"type": "text", "text": ""}
        self._blocks.append(block)
        self._open = True
        shown = {**block, "input": {}} if part.kind == CALL else dict(block)
        return {"type": "content_block_start", "index": len(self._blocks) - 1, "content_block": shown}

    def _grow(self, part: Part) -> Object:
        block = self._blocks[-1]
        if part.kind == ARGUMENTS:
            block["input"] += part.text
            delta = {"type": "input_json_delta", "partial_json": part.text}
        elif part.kind == THOUGHT:
            block["thinking"] += part.text
            delta = {"type": "thinking_delta", "thinking": part.text}
        else:
            block["text"] += part.text
            delta = {"type": "text_delta", "text": part.text}
        return {"type": "content_block_delta", "index": len(self._blocks) - 1, "delta": delta}

    def _stop(self) -> list[Object]:
        if not self._open:
            return []
        self._open = False
        return [{"type": "content_block_stop", "index": len(self._blocks) - 1}]

    def _message(self, content: Sequence[Object], prompt: int, answer: int) -> Object:
        return {
            "id": f"msg_{self._asked.id}",
            "type": "message",
            "role": "assistant",
            "model": self._asked.model,
            "content": content,
            "stop_reason": self._reason,
            "stop_sequence": None,
            "usage": {"input_tokens": prompt, "output_tokens": answer},
        }


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments or "{}")
    except (ValueError, RecursionError):
        return {}
