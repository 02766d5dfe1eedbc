"""A model's special token in a message is encoded as its letters."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any, Optional, Union

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import ByteTokenizer
from xpuserve.engine.plain import PlainText
from xpuserve.engine.prompts import PromptError, encode_chat
from xpuserve.engine.request import PLAIN, ChatOptions, Message, ToolCall

MARKS = ["<|im_start|>", "<|im_end|>", "<|im_end|>>", "<s>", "[INST]"]
LETTERS = 128


class Chat(ByteTokenizer):
    """A letter a token, and marks behind the letters; its vocabulary is written in one of the ways of libraries."""

    bos_id = None  # type: ignore[assignment]  # a tokenizer may have none

    def __init__(self, write: Callable[[str], Union[str, bytes]]) -> None:
        super().__init__()
        self._write = write

    def pieces(self) -> Sequence[Union[str, bytes]]:
        return [*map(self._write, map(chr, range(LETTERS))), *map(self._write, MARKS)]

    def encode(self, text: str, *, special: bool) -> list[int]:
        longest_first = sorted(MARKS, key=len, reverse=True)
        parts = re.split("(" + "|".join(map(re.escape, longest_first)) + ")", text)
        return [n for part in parts for n in ([LETTERS + MARKS.index(part)] if part in MARKS else map(ord, part))]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(chr(n) for n in ids if n < LETTERS)

    def render(self, messages: Sequence[Message], options: ChatOptions = PLAIN) -> Optional[str]:
        turns = [f"<|im_start|>{each.role}\n{each.content.strip()}{each.thought}<|im_end|>" for each in messages]
        return "".join([*turns, *(call.arguments for each in messages for call in each.calls), "<|im_start|>"])


KINDS: dict[str, Callable[[str], Union[str, bytes]]] = {
    "bytes": str.encode,
    "byte pairs": str,
    "SentencePiece": lambda piece: piece.replace(" ", "\u2581"),
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def tokenizer(request: pytest.FixtureRequest) -> Chat:
    return Chat(request.param)


def encoded(tokenizer: Chat, *messages: Message, prompt_format: str = "tokenizer") -> list[int]:
    plain = PlainText(tokenizer)
    return encode_chat(plain, prompt_format, plain.hidden(messages))


@pytest.mark.parametrize("mark", MARKS)
def test_a_mark_in_a_message_is_text(tokenizer: Chat, mark: str) -> None:
    ids = encoded(tokenizer, Message("user", f"before {mark} after"))
    marks = [MARKS[n - LETTERS] for n in ids if n >= LETTERS]
    assert marks == ["<|im_start|>", "<|im_end|>", "<|im_start|>"]
    assert tokenizer.decode(ids) == f"user\nbefore {mark} after"


def test_so_it_is_in_thoughts_and_arguments(tokenizer: Chat) -> None:
    plain = PlainText(tokenizer)
    call = ToolCall("1", "f", '{"a": "<|im_end|>"}')
    hidden = plain.hidden([Message("assistant", "", thought="<s>", calls=(call,))])
    ids = plain.encode(plain.render(hidden) or "", special=False)
    assert len([n for n in ids if n >= LETTERS]) == 3
    assert tokenizer.decode(ids) == 'assistant\n<s>{"a": "<|im_end|>"}'


def written(messages: Sequence[Message], options: ChatOptions) -> str:
    """What a template writes that knows tools."""
    return json.dumps(options.tools[0]["function"], ensure_ascii=False)


def test_so_it_is_in_tools(tokenizer: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = {"properties": {"a<s>": {"enum": ["<|im_end|>", 1, None]}}, "required": ["a<s>"]}
    function = {"name": "f", "description": "before [INST] after", "parameters": parameters}
    plain = PlainText(tokenizer)
    options = ChatOptions(tools=plain.hidden_tools([{"type": "function", "function": function}]))
    messages = plain.hidden([Message("user", "x")])
    for native in (False, True):
        if native:  # the template writes them itself
            monkeypatch.setattr(tokenizer, "render", written)
            monkeypatch.setattr(plain, "template", "{% if tools %}<tool_call>{% endif %}")
        ids = encode_chat(plain, "tokenizer", messages, options)
        assert json.dumps(function) in tokenizer.decode(ids)
        assert len([n for n in ids if n >= LETTERS]) == (0 if native else 5)
    assert plain.encode("<s>", special=False) == [LETTERS + MARKS.index("<s>")]


def test_a_tool_that_is_nested_too_deep_is_the_client_s_mistake(tokenizer: Chat) -> None:
    parameters: dict[str, Any] = {}
    for _turn in range(5000):
        parameters = {"items": parameters}
    with pytest.raises(PromptError, match="nested too deep"):
        PlainText(tokenizer).hidden_tools([{"function": {"name": "f", "parameters": parameters}}])


@pytest.mark.parametrize("prompt_format", ["llama-2", "chatglm2"])
def test_so_it_is_in_formats_of_our_own(tokenizer: Chat, prompt_format: str) -> None:
    ids = encoded(tokenizer, Message("user", "a <s> b"), prompt_format=prompt_format)
    assert LETTERS + MARKS.index("<s>") not in ids
    assert "a <s> b" in tokenizer.decode(ids)


@pytest.mark.parametrize("text", ["plain", "", "<|im_", "\ue0f00\ue0f1", "<|im_end|>" * 3, "<|im_end|>>"])
def test_the_text_is_what_was_written(tokenizer: Chat, text: str) -> None:
    kept = text.replace("\ue0f0", "").replace("\ue0f1", "")
    assert tokenizer.decode(encoded(tokenizer, Message("user", text))) == f"user\n{kept}"


def test_a_text_without_marks_is_encoded_in_one(tokenizer: Chat) -> None:
    assert encoded(tokenizer, Message("user", "a b")) == tokenizer.encode(
        "<|im_start|>user\na b<|im_end|><|im_start|>", special=False
    )
