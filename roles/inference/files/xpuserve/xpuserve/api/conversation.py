"""The messages and tools of a chat, as clients send them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal, Optional, Union

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from xpuserve.engine.request import Message, ToolCall

MAX_TOOLS = 128
_NAME = "^[A-Za-z0-9_.:-]{1,128}$"


def whole_characters(text: str) -> str:
    """The text; raises ValueError if it has half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half of a surrogate pair is not text") from None
    return text


def only_text(
    kinds: Sequence[str], wanted: str, *, piece: str = "part", may_lack: bool = False
) -> Callable[[Any], Any]:
    """A validator that names a content part of another kind than these, all of which text models read.

    Types are validated later. Raises ValueError, also if the content is not as `wanted`.
    """

    def check(content: Any) -> Any:
        for n, each in enumerate(content if isinstance(content, list) else ()):
            kind = each.get("type") if isinstance(each, dict) else None
            if isinstance(kind, str) and kind not in kinds:
                raise ValueError(f"{piece} {n} is {kind}: this model reads text only")
        if not isinstance(content, (str, list)) and not (may_lack and content is None):
            raise ValueError(f"it must be a string, or {wanted}")
        return content

    return check


Text = Annotated[str, AfterValidator(whole_characters)]


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(strict=True)

    type: Literal["text"]
    text: Text


class RefusalPart(BaseModel):
    """What a model said that did not answer."""

    model_config = ConfigDict(strict=True)

    type: Literal["refusal"]
    refusal: Text


_only_text = only_text(("text", "refusal"), "a list of parts of type text", may_lack=True)
Content = Annotated[Optional[Union[Text, list[Union[TextPart, RefusalPart]]]], BeforeValidator(_only_text)]


class CalledFunction(BaseModel):
    """What was called, and with which arguments, as JSON."""

    model_config = ConfigDict(strict=True)

    name: Text
    arguments: Text


class Call(BaseModel):
    """A call of a tool."""

    model_config = ConfigDict(strict=True)

    id: Text = ""
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    name: Optional[Text] = None
    tool_calls: Optional[list[Call]] = Field(default=None, description="an assistant's")
    tool_call_id: Optional[Text] = Field(default=None, description="of the call that a tool's content answers")
    reasoning_content: Optional[Text] = Field(default=None, description="what an assistant thought")
    reasoning: Optional[Text] = None
    content: Content = Field(
        default=None, description="only an assistant's with tool_calls may be null", validate_default=True
    )

    @field_validator("tool_calls")
    @classmethod
    def _is_the_assistants(cls, value: Optional[list[Call]], info: ValidationInfo) -> Optional[list[Call]]:
        if value and info.data.get("role") != "assistant":
            raise ValueError("only a message of the assistant has tool_calls")
        return value

    @field_validator("content")
    @classmethod
    def _says_something(cls, value: Any, info: ValidationInfo) -> Any:
        data = info.data
        if value is None and not (data.get("role") == "assistant" and data.get("tool_calls")):
            raise ValueError("it is missing or null: only a message with tool_calls may omit it")
        return value

    @property
    def thought(self) -> str:
        """An assistant's reasoning before its answer."""
        return self.reasoning_content or self.reasoning or ""

    def as_message(self) -> Message:
        """The message for the engine; a developer's message becomes a system message."""
        content = self.content or ""
        if not isinstance(content, str):
            content = "".join(part.text if isinstance(part, TextPart) else part.refusal for part in content)
        return Message(
            "system" if self.role == "developer" else self.role,
            content,
            calls=tuple(
                ToolCall(call.id, call.function.name, call.function.arguments) for call in self.tool_calls or ()
            ),
            thought=self.thought,
            call=self.tool_call_id or "",
            name=self.name or "",
        )


class Function(BaseModel):
    """A function of the client's, with its parameters as JSON schema."""

    model_config = ConfigDict(strict=True)

    name: Annotated[str, Field(pattern=_NAME)]
    description: Optional[Text] = None
    parameters: Optional[dict[str, Any]] = None
    strict: Optional[bool] = None


def only_functions(tool: Any) -> Any:
    kind = tool.get("type") if isinstance(tool, dict) else None
    if isinstance(kind, str) and kind != "function":
        raise ValueError(f"this server has no tools of its own, so none of type {kind!r}: only function is offered")
    return tool


class FunctionTool(BaseModel):
    """What the model may call."""

    model_config = ConfigDict(strict=True)

    type: Literal["function"]
    function: Function


Tool = Annotated[FunctionTool, BeforeValidator(only_functions)]


class NamedFunction(BaseModel):
    """A function by its name."""

    model_config = ConfigDict(strict=True)

    name: str


class NamedTool(BaseModel):
    """A tool by its name."""

    model_config = ConfigDict(strict=True)

    type: Literal["function"]
    function: NamedFunction


ToolChoice = Union[Literal["none", "auto", "required"], NamedTool]


def _known_choice(choice: Any) -> Any:
    if isinstance(choice, str) and choice not in ("none", "auto", "required"):
        raise ValueError("it must be none, auto, required, or an object with the name of a function")
    return choice


Choice = Annotated[ToolChoice, BeforeValidator(_known_choice)]


def for_template(tools: Sequence[FunctionTool]) -> tuple[dict[str, Any], ...]:
    """The tools in the form of chat templates."""
    found = []
    for tool in tools:
        function = {"name": tool.function.name, "description": tool.function.description or ""}
        parameters = tool.function.parameters or {"type": "object", "properties": {}}
        found.append({"type": "function", "function": {**function, "parameters": parameters}})
    return tuple(found)
