"""For templates without tools: the system message describes them, and the answer is one JSON object.

The object is either text for the person or a call; a grammar allows nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Optional

from xpuserve.dialects.base import TEXT, Dialect, Part, Reader, merged
from xpuserve.dialects.calls import CallReader
from xpuserve.engine.request import ChatOptions, Message

RESPONSE, CALL_KEY = "response", "tool_call"


class Generic(Dialect):
    """`{"response": "text"}` or `{"tool_call": {"name": "f", "arguments": {}}}`."""

    native = False

    @classmethod
    def writes(cls, template: str) -> bool:
        """See Dialect."""
        return True

    def reader(self, tools: Collection[str]) -> Reader:
        """See Dialect."""
        return GenericReader(tools)


def call_schema(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON schema of a call of one of these tools."""
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": tool["function"]["name"]},
                "arguments": tool["function"].get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool in tools
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def answer_schema(tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON schema of an answer that may also be text."""
    return {"anyOf": [_single(RESPONSE, {"type": "string"}), _single(CALL_KEY, call_schema(tools))]}


def _single(name: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {name: schema}, "required": [name], "additionalProperties": False}


def plain(messages: Sequence[Message], options: ChatOptions) -> list[Message]:
    """The conversation as plain texts, with the tools in its system message."""
    has_system = bool(messages) and messages[0].role == "system"
    system, rest = (messages[0].content, messages[1:]) if has_system else ("", messages)
    if options.tools:
        system = "\n\n".join(filter(None, (system, _described(options))))
    result = [Message("system", system)] if system else []
    for message in rest:
        if message.role == "tool":
            _say(result, "user", f"Result of {_called(messages, message)}: {message.content}")
        elif message.calls:
            calls = [_written(call.name, call.arguments) for call in message.calls]
            _say(result, "assistant", "\n".join(filter(None, [message.content, *calls])))
        elif message.role == "user":
            _say(result, "user", message.content)
        else:
            result.append(message)
    return result


def _say(messages: list[Message], role: str, text: str) -> None:
    """Add a turn, or extend the last one of the same role: many templates require alternating roles."""
    if messages and messages[-1].role == role:
        messages[-1] = Message(role, f"{messages[-1].content}\n{text}")
    else:
        messages.append(Message(role, text))


def _written(name: str, arguments: str) -> str:
    return f'{{"{CALL_KEY}": {{"name": {json.dumps(name)}, "arguments": {arguments}}}}}'


def _called(messages: Sequence[Message], result: Message) -> str:
    """The name of the tool that gave this result."""
    names = [call.name for message in messages for call in message.calls if call.id == result.call]
    return result.name or (names[-1] if names else "the tool")


def _described(options: ChatOptions) -> str:
    functions = [
        {name: value for name, value in tool["function"].items() if name != "strict"} for tool in options.tools
    ]
    lines = "\n".join(json.dumps(function, ensure_ascii=False) for function in functions)
    return f"You have these tools, as JSON:\n{lines}\n{_HOW[options.answer]}"


_CALL = '{"name": "NAME", "arguments": {...}}'
_HOW = {
    "text": f'Answer with JSON and nothing else: {{"{RESPONSE}": "your answer"}} for the user, or, where a tool is '
    f'needed, {{"{CALL_KEY}": {_CALL}}}. When you have the result of a tool, use it to answer.',
    "call": f"Answer with a call of one of them, as JSON and nothing else: {_CALL}",
    "form": f"Answer as you are asked to, or, where a tool is needed, with its call as JSON and nothing else: {_CALL}",
}


class GenericReader(Reader):
    """Text from the string of `response`, or a call; any other answer counts as plain text."""

    def __init__(self, tools: Collection[str]) -> None:
        self._tools = tools
        self._text = ""  # not yielded yet
        self._head = ""  # text before the call
        self._string: Optional[_String] = None
        self._call: Optional[CallReader] = None
        self._plain = self._over = False

    def feed(self, text: str) -> list[Part]:
        """See Reader."""
        return merged(self._feed(text))

    def finish(self) -> list[Part]:
        """See Reader."""
        rest, self._text = self._text, ""
        if self._call:
            self._call.finish()
            if self._call.failed:
                rest = self._head + self._call.rest
        return merged(iter([Part(TEXT, rest)]))

    def _feed(self, text: str) -> Iterator[Part]:
        if self._over:
            return
        if self._plain:
            yield Part(TEXT, text)
        elif self._string:
            yield Part(TEXT, self._string.feed(text))
            self._over = self._string.ended
        elif self._call:
            yield from self._call.feed(text)
            self._over = self._call.done
            if self._call.failed:
                self._plain = True
                yield Part(TEXT, self._head + self._call.rest)
                self._call = None
        else:
            self._text += text
            yield from self._begin()

    def _begin(self) -> Iterator[Part]:
        key = _key(self._text)
        if key is None:
            return
        name, rest = key
        text, self._text = self._text, ""
        if name == RESPONSE:
            self._string = _String()
            yield from self._feed(rest)
        elif name == CALL_KEY:
            self._call, self._head = CallReader(self._tools), text[: len(text) - len(rest)]
            yield from self._feed(rest)
        else:
            self._plain = True
            yield Part(TEXT, text)


def _key(text: str) -> Optional[tuple[str, str]]:
    """The object's first key and the text after it; None while it may still come, and an empty key if it cannot."""
    for name, begin in ((RESPONSE, '"'), (CALL_KEY, "{")):
        rest = text
        for token in ("{", f'"{name}"', ":", begin):
            rest = rest.lstrip()
            if not rest or (token.startswith(rest) and rest != token):
                return None
            if not rest.startswith(token):
                break
            rest = rest[len(token) :]
        else:
            return name, rest if begin == '"' else begin + rest
    return "", text


class _String:
    """The text of a streamed JSON string, after its opening quotation mark."""

    def __init__(self) -> None:
        self._held = ""
        self.ended = False

    def feed(self, text: str) -> str:
        """The certain text so far."""
        text = self._held + text
        self._held, at, result = "", 0, ""
        while at < len(text) and not self.ended:
            if text[at] == '"':
                self.ended = True
            elif text[at] != "\\":
                end = min((n for n in (text.find('"', at), text.find("\\", at)) if n >= 0), default=len(text))
                result, at = result + text[at:end], end
            else:
                size = _escape(text[at:])
                if not size:
                    self._held = text[at:]
                    break
                result, at = result + _unescaped(text[at : at + size]), at + size
        return result


def _escape(text: str) -> int:
    """Length of the escape at the beginning of `text`; 0 if it is incomplete."""
    if len(text) < 2:
        return 0
    if text[1] != "u":
        return 2
    if len(text) < 6:
        return 0
    if not text[2:4].lower().startswith(("d8", "d9", "da", "db")):
        return 6
    return 12 if len(text) >= 12 else 0  # half of a pair


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"')).encode("utf-8", "replace").decode()
    except ValueError:
        return text
