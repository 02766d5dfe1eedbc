"""OpenAI's Responses API: stateless, so a client sends the whole conversation each time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from xpuserve.api import errors, sse
from xpuserve.api.conversation import MAX_TOOLS, Text, only_functions, only_text
from xpuserve.api.replies import Asked, Choice, Object, Reply, TokenCounts, Tokens
from xpuserve.api.schema import first_not_offered, name_not_offered
from xpuserve.dialects.base import ARGUMENTS, CALL, TEXT, THOUGHT, Part
from xpuserve.engine.request import Failed

# Like schema.NOT_OFFERED, for fields of this API only.
NOT_OFFERED: dict[str, tuple[Any, ...]] = {
    "background": (False,),
    "conversation": (),
    "max_tool_calls": (),
    "previous_response_id": (),
    "prompt": (),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
# Other fields that clients send, and a chat has too.
_SHARED = (
    *("top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty", "seed", "stop", "logit_bias"),
    *("min_tokens", "stop_token_ids", "ignore_eos", "chat_template_kwargs", "cache_salt", "structured_outputs"),
)
_only_text = only_text(
    ("input_text", "output_text", "text", "refusal"), "a list of parts of type input_text or output_text"
)


class ResponsesPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(strict=True)

    type: Literal["input_text", "output_text", "text", "refusal"]
    text: Optional[Text] = None
    refusal: Optional[Text] = None


class InputMessage(BaseModel):
    """A turn of the conversation."""

    model_config = ConfigDict(strict=True)

    type: Literal["message"] = "message"
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Union[Text, list[ResponsesPart]], BeforeValidator(_only_text)]


class InputCall(BaseModel):
    """A call that the model made."""

    model_config = ConfigDict(strict=True)

    type: Literal["function_call"]
    call_id: Text
    name: Text
    arguments: Text


class InputResult(BaseModel):
    """What came of a call."""

    model_config = ConfigDict(strict=True)

    type: Literal["function_call_output"]
    call_id: Text
    output: Annotated[Union[Text, list[ResponsesPart]], BeforeValidator(_only_text)]


class InputThought(BaseModel):
    """What the model thought; it is not needed again."""

    model_config = ConfigDict(strict=True)

    type: Literal["reasoning"]


_ITEMS = ("message", "function_call", "function_call_output", "reasoning")


def _known_items(items: Any) -> Any:
    if not isinstance(items, (str, list)):
        raise ValueError("it must be a string or a list of items")
    for n, item in enumerate(items if isinstance(items, list) else ()):
        kind = item.get("type", "message") if isinstance(item, dict) else None
        if isinstance(kind, str) and kind not in _ITEMS:
            raise ValueError(f"item {n} is {kind}, which this server does not support")
    return items


class ResponsesTool(BaseModel):
    """A function of the client's."""

    model_config = ConfigDict(strict=True)

    type: Literal["function"]
    name: str
    description: Optional[Text] = None
    parameters: Optional[dict[str, Any]] = None
    strict: Optional[bool] = None


class ResponsesNamedTool(BaseModel):
    """A tool by its name."""

    model_config = ConfigDict(strict=True)

    type: Literal["function"]
    name: str


class TextFormat(BaseModel):
    """The form of the answer."""

    model_config = ConfigDict(strict=True)

    type: Literal["text", "json_object", "json_schema"] = "text"
    name: Optional[str] = None
    schema_: Optional[dict[str, Any]] = Field(default=None, alias="schema")


class TextOptions(BaseModel):
    """What the answer's text is to be."""

    model_config = ConfigDict(strict=True)

    format: Optional[TextFormat] = None


class Reasoning(BaseModel):
    """How much a model that can think is to."""

    model_config = ConfigDict(strict=True)

    effort: Optional[Literal["none", "minimal", "low", "medium", "high", "xhigh"]] = None


class ResponsesRequest(BaseModel):
    """The body of /v1/responses. What is not here is treated as in a chat."""

    model_config = ConfigDict(strict=True, extra="allow", json_schema_extra=name_not_offered(NOT_OFFERED))

    model: Optional[Text] = Field(default=None, description="the served model, if omitted")
    input: Annotated[
        Union[Text, list[Union[InputMessage, InputCall, InputResult, InputThought]]], BeforeValidator(_known_items)
    ]
    instructions: Optional[Text] = None
    stream: Optional[bool] = None
    temperature: Optional[float] = Field(default=None, ge=0, le=2)
    top_p: Optional[float] = Field(default=None, gt=0, le=1)
    max_output_tokens: Optional[int] = Field(default=None, ge=1)
    tools: Optional[list[Annotated[ResponsesTool, BeforeValidator(only_functions)]]] = Field(
        default=None, max_length=MAX_TOOLS
    )
    tool_choice: Optional[Union[Literal["none", "auto", "required"], ResponsesNamedTool]] = None
    parallel_tool_calls: Optional[bool] = None
    text: Optional[TextOptions] = None
    reasoning: Optional[Reasoning] = None

    def not_offered(self) -> Optional[str]:
        """The first field that requests an unsupported feature."""
        return first_not_offered(self.model_extra or {}, NOT_OFFERED)

    def as_chat(self) -> dict[str, Any]:
        """The request as the body of a chat."""
        body: dict[str, Any] = {
            "model": self.model,
            "messages": self._messages(),
            "stream": self.stream,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "max_completion_tokens": self.max_output_tokens,
            "parallel_tool_calls": self.parallel_tool_calls,
            "tools": [
                {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}
                for tool in self.tools or ()
            ]
            or None,
            "tool_choice": self.tool_choice,
            "reasoning_effort": self.reasoning.effort if self.reasoning else None,
        }
        if isinstance(self.tool_choice, ResponsesNamedTool):
            body["tool_choice"] = {"type": "function", "function": {"name": self.tool_choice.name}}
        form = self.text.format if self.text else None
        if form and form.type != "text":
            schema = {"name": form.name or "answer", "schema": form.schema_}
            body["response_format"] = {"type": form.type, **({"json_schema": schema} if form.schema_ else {})}
        more = self.model_extra or {}
        return {**{name: more[name] for name in _SHARED if name in more}, **body}

    def _messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.instructions:
            messages.append({"role": "system", "content": self.instructions})
        if isinstance(self.input, str):
            return [*messages, {"role": "user", "content": self.input}]
        for item in self.input:
            if isinstance(item, InputMessage):
                messages.append({"role": item.role, "content": _text(item.content)})
            elif isinstance(item, InputCall):
                call = {"id": item.call_id, "function": {"name": item.name, "arguments": item.arguments}}
                if messages and messages[-1].get("role") == "assistant":
                    messages[-1].setdefault("tool_calls", []).append(call)
                else:
                    messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
            elif isinstance(item, InputResult):
                messages.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
        return messages


def _text(content: Union[str, list[ResponsesPart]]) -> str:
    return content if isinstance(content, str) else "".join(part.text or part.refusal or "" for part in content)


class ResponsesReply(Reply):
    """A response, and the events of its stream: a sequence of growing items."""

    done = b""

    def __init__(self, body: ResponsesRequest, asked: Asked) -> None:
        super().__init__(asked)
        self._body = body
        self._number = 0  # number of the next event
        self._items: list[Object] = []
        self._reason = ""

    @staticmethod
    def encode(data: Any) -> bytes:
        """See Reply."""
        return sse.named(data)

    def whole(self, choices: Sequence[Choice], usage: TokenCounts) -> Object:
        """See Reply."""
        self.more(0, choices[0].text, choices[0].tokens)
        self.end(0, choices[0].reason)
        return self._response(self._status, usage)

    def begin(self, choices: int) -> list[Object]:
        """See Reply."""
        response = self._response("in_progress")
        return [
            self._event("response.created", response=response),
            self._event("response.in_progress", response=response),
        ]

    def more(self, choice: int, text: str, tokens: Tokens) -> list[Object]:
        """See Reply."""
        return [event for part in self._fed(choice, text) for event in self._part(part)]

    def end(self, choice: int, reason: str) -> list[Object]:
        """See Reply."""
        self._reason = reason
        events = [event for part in self._finished(choice) for event in self._part(part)]
        return [*events, *self._close_item()]

    def close(self, usage: TokenCounts) -> list[Object]:
        """See Reply."""
        return [self._event(f"response.{self._status}", response=self._response(self._status, usage))]

    def fail(self, event: Failed) -> list[Object]:
        """See Reply."""
        problem = errors.failure(event).body["error"]
        response = self._response("failed")
        response["error"] = {"code": problem["code"] or problem["type"], "message": problem["message"]}
        return [self._event("response.failed", response=response)]

    @property
    def _status(self) -> str:
        return "incomplete" if self._reason == "length" else "completed"

    def _part(self, part: Part) -> list[Object]:
        events: list[Object] = []
        kinds = {TEXT: "message", THOUGHT: "reasoning"}
        if part.kind == CALL or (
            part.kind in kinds and (not self._items or self._items[-1]["type"] != kinds[part.kind] or self._ended)
        ):
            events += [*self._close_item(), *self._open_item(part)]
        if part.kind != CALL:
            events.append(self._grow(part))
        return events

    @property
    def _ended(self) -> bool:
        return bool(self._items) and self._items[-1]["status"] != "in_progress"

    def _open_item(self, part: Part) -> list[Object]:
        number = len(self._items)
        name = f"{self._asked.id}{number}"
        if part.kind == CALL:
            item: Object = {"type": "function_call", "id": f"fc_{name}", "call_id": self._asked.call_id()}
            item |= {"name": part.text, "arguments": "", "status": "in_progress"}
        elif part.kind == THOUGHT:
            item = {"type": "reasoning", "id": f"rs_{name}", "summary": [], "content": [], "status": "in_progress"}
        else:
            item = {"type": "message", "id": f"msg_{name}", "role": "assistant", "content": [], "status": "in_progress"}
        self._items.append(item)
        events = [self._event("response.output_item.added", output_index=number, item=dict(item))]
        if part.kind == TEXT:
            item["content"] = [{"type": "output_text", "text": "", "annotations": [], "logprobs": []}]
            events.append(self._at("response.content_part.added", content_index=0, part=dict(item["content"][0])))
        elif part.kind == THOUGHT:
            item["content"] = [{"type": "reasoning_text", "text": ""}]
        return events

    def _grow(self, part: Part) -> Object:
        item = self._items[-1]
        if part.kind == ARGUMENTS:
            item["arguments"] += part.text
            return self._at("response.function_call_arguments.delta", delta=part.text)
        item["content"][0]["text"] += part.text
        if part.kind == THOUGHT:
            return self._at("response.reasoning_text.delta", content_index=0, delta=part.text)
        return self._at("response.output_text.delta", content_index=0, delta=part.text, logprobs=[])

    def _close_item(self) -> list[Object]:
        if not self._items or self._ended:
            return []
        item = self._items[-1]
        item["status"] = self._status
        if item["type"] == "function_call":
            events = [self._at("response.function_call_arguments.done", arguments=item["arguments"], name=item["name"])]
        else:
            part = item["content"][0]
            thought = item["type"] == "reasoning"
            more: Object = {} if thought else {"logprobs": []}
            name = "reasoning_text" if thought else "output_text"
            events = [self._at(f"response.{name}.done", content_index=0, text=part["text"], **more)]
            if not thought:
                events.append(self._at("response.content_part.done", content_index=0, part=part))
        return [*events, self._event("response.output_item.done", output_index=len(self._items) - 1, item=item)]

    def _at(self, kind: str, **more: Any) -> Object:
        return self._event(kind, item_id=self._items[-1]["id"], output_index=len(self._items) - 1, **more)

    def _event(self, kind: str, **more: Any) -> Object:
        self._number += 1
        return {"type": kind, "sequence_number": self._number - 1, **more}

    def _response(self, status: str, usage: Optional[TokenCounts] = None) -> Object:
        body = self._body
        form = body.text.format if body.text else None
        choice = body.tool_choice
        return {
            "id": f"resp_{self._asked.id}",
            "object": "response",
            "created_at": self._asked.created,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "metadata": {},
            "model": self._asked.model,
            "output": list(self._items) if status != "in_progress" else [],
            "parallel_tool_calls": body.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": body.reasoning.effort if body.reasoning else None, "summary": None},
            "store": False,
            "temperature": body.temperature,
            "text": {"format": form.model_dump(by_alias=True, exclude_none=True) if form else {"type": "text"}},
            "tool_choice": choice.model_dump() if isinstance(choice, ResponsesNamedTool) else choice or "auto",
            "tools": [{"strict": None, "parameters": None, **tool.model_dump()} for tool in body.tools or ()],
            "top_p": body.top_p,
            "truncation": "disabled",
            "usage": usage
            and {
                "input_tokens": usage.prompt,
                "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": usage.answers,
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage.prompt + usage.answers,
            },
        }
