"""How to prompt a chat and read its answer: by its tools, its form, and the model's syntax."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Optional

from xpuserve import structured
from xpuserve.api.conversation import NamedTool, for_template
from xpuserve.api.errors import APIError, unsupported
from xpuserve.api.schema import ChatRequest
from xpuserve.dialects.base import Dialect, FirstCall, Reader
from xpuserve.dialects.generic import answer_schema, call_schema
from xpuserve.dialects.llama import BareReader
from xpuserve.dialects.thinking import ThinkingReader
from xpuserve.engine.request import ChatOptions
from xpuserve.structured import Asked, StructuredOutput

# Forms that can be combined with calls.
_JSON = ("json_schema", "json_object")


@dataclass(frozen=True)
class Plan:
    """What a chat needs beside its messages. `read` makes a reader of its answer, or is None for a plain one.

    If `form` is that of optional tools, `loose` is the same without their parameters.
    """

    options: ChatOptions
    form: Optional[Asked] = None
    loose: Optional[Asked] = None
    read: Optional[Callable[[], Reader]] = None
    markers: Sequence[str] = field(default=())

    def reader(self, *, begun: bool) -> Optional[Reader]:
        """A reader of an answer; with `begun` it begins within a thought."""
        inner = self.read() if self.read else None
        return ThinkingReader(inner, begun=begun) if self.options.thinks else inner


def plan(body: ChatRequest, dialect: Dialect, offers: Collection[str]) -> Plan:
    """Plan a chat. Raises APIError and StructuredOutputError."""
    tools = for_template(body.tools or ())
    offered = _offered(body, tools)
    form = body.structured
    forced = bool(offered) and body.tool_choice not in (None, "auto")
    told = tools if offered else ()
    names = {tool["function"]["name"] for tool in offered}
    loose, read, answer = None, None, "text"
    markers: tuple[str, ...] = ()
    if forced:
        form, answer = _asked(call_schema(offered)), "call"
    elif offered and form and form.output.kind in _JSON:
        schema = json.loads(form.output.schema())
        loose = _asked({"anyOf": [schema, call_schema(_without_parameters(offered))]})
        form, answer = _asked({"anyOf": [schema, call_schema(offered)]}), "form"
    elif offered and not form and not dialect.native:
        loose = _asked(answer_schema(_without_parameters(offered)))
        form = _asked(answer_schema(offered)) if "structured_outputs" in offers else None
        read = _maker(body, dialect, names)
    elif offered and not form:
        markers = dialect.markers
        read = _maker(body, dialect, names)
    if answer != "text":
        read = partial(BareReader, names)
    options = ChatOptions(
        tools=told,
        template=_template_values(body, dialect),
        continues=bool(body.continue_final_message),
        answer=answer,
        thinks=dialect.thinks and form is None and not body.continue_final_message,
    )
    return Plan(options, form, loose, read, markers)


def _maker(body: ChatRequest, dialect: Dialect, names: set[str]) -> Callable[[], Reader]:
    if body.parallel_tool_calls is False:
        return lambda: FirstCall(dialect.reader(names))
    return lambda: dialect.reader(names)


def _offered(body: ChatRequest, tools: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
    """The tools that may be called."""
    choice = body.tool_choice
    if isinstance(choice, NamedTool):
        named = [tool for tool in tools if tool["function"]["name"] == choice.function.name]
        if not named:
            raise APIError(400, f"tool_choice: there is no tool {choice.function.name!r}", param="tool_choice")
        return named
    if choice == "required" and not tools:
        raise APIError(400, "tool_choice: there are no tools", param="tool_choice")
    return () if choice == "none" else tools


def _template_values(body: ChatRequest, dialect: Dialect) -> dict[str, Any]:
    values = dict(body.chat_template_kwargs or {})
    effort = body.reasoning_effort
    if effort and effort != "none" and not dialect.thinks:
        raise unsupported("reasoning_effort", "this model does not think before it answers")
    if effort and "enable_thinking" in dialect.template:
        values.setdefault("enable_thinking", effort != "none")
    if effort and "reasoning_effort" in dialect.template:
        values.setdefault("reasoning_effort", effort)
    return values


def _asked(schema: dict[str, Any]) -> Asked:
    try:
        return Asked(StructuredOutput("json_schema", json.dumps(schema)), "tools")
    except RecursionError:
        raise structured.StructuredOutputError("tools", "the parameters of a tool are nested too deeply") from None


def _without_parameters(tools: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{"function": {"name": tool["function"]["name"]}} for tool in tools]
