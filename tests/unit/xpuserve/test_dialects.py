"""Models' answers in the syntax of their templates, read whole and in pieces of every length."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

import pytest
from xpuserve import dialects
from xpuserve.dialects.base import Dialect, Part, Reader, merged
from xpuserve.dialects.generic import Generic, answer_schema, call_schema, plain
from xpuserve.dialects.hermes import Hermes
from xpuserve.dialects.llama import Llama
from xpuserve.dialects.mistral import Mistral
from xpuserve.dialects.thinking import ThinkingReader
from xpuserve.engine.request import PLAIN, ChatOptions, Message, ToolCall

TOOLS = {"get_weather", "search"}
PARIS = '{"city": "Paris", "unit": "celsius"}'


class Transcript(NamedTuple):
    """A generated answer, and the parts in it."""

    dialect: type[Dialect]
    text: str
    parts: list[tuple[str, str]]


def call(arguments: str, name: str = "get_weather") -> list[tuple[str, str]]:
    return [("call", name), ("arguments", arguments)]


TRANSCRIPTS = {
    "qwen 2.5, one call": Transcript(
        Hermes, f'<tool_call>\n{{"name": "get_weather", "arguments": {PARIS}}}\n</tool_call>', call(PARIS)
    ),
    "qwen 2.5, two calls": Transcript(
        Hermes,
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>\n'
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>',
        [*call('{"city": "Paris"}'), *call('{"city": "Rome"}')],
    ),
    "qwen 2.5, words first": Transcript(
        Hermes,
        "Let me look that up.\n\n"
        '<tool_call>\n{"name": "search", "arguments": {"query": "a \\"b\\" {c} \\\\"}}\n</tool_call>',
        [("text", "Let me look that up."), *call('{"query": "a \\"b\\" {c} \\\\"}', "search")],
    ),
    "hermes 2 pro, arguments first": Transcript(
        Hermes,
        '<tool_call>\n{"arguments": {"city": "Paris"}, "name": "get_weather"}\n</tool_call>\n',
        call('{"city": "Paris"}'),
    ),
    "hermes 3, no end": Transcript(
        Hermes, '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n', call('{"city": "Paris"}')
    ),
    "qwen, cut within the arguments": Transcript(
        Hermes, '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Par', call('{"city": "Par')
    ),
    "qwen, cut within the name": Transcript(
        Hermes, '<tool_call>\n{"name": "get_we', [("text", '<tool_call>\n{"name": "get_we')]
    ),
    "qwen, a tool that there is not": Transcript(
        Hermes,
        '<tool_call>\n{"name": "fly", "arguments": {}}\n</tool_call>',
        [("text", '<tool_call>\n{"name": "fly", "arguments": {}}\n</tool_call>')],
    ),
    "qwen, words about the tag": Transcript(
        Hermes, "Write <tool_call> and < or <tool.", [("text", "Write <tool_call> and < or <tool.")]
    ),
    "qwen, words after the call": Transcript(
        Hermes,
        '<tool_call>\n{"name": "get_weather", "arguments": {}}\n</tool_call>\nDone.',
        [*call("{}"), ("text", "Done.")],
    ),
    "qwen, no call": Transcript(Hermes, "It is 5 < 6.\n", [("text", "It is 5 < 6.\n")]),
    "llama 3.1": Transcript(
        Llama, '{"name": "get_weather", "parameters": {"city": "Paris"}}', call('{"city": "Paris"}')
    ),
    "llama 3.1, with its tag": Transcript(
        Llama, '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Paris"}}', call('{"city": "Paris"}')
    ),
    "llama 3.2, with a type": Transcript(
        Llama,
        '{"type": "function", "name": "get_weather", "parameters": {"city": "Paris"}}',
        call('{"city": "Paris"}'),
    ),
    "llama 3.3, with a function in it": Transcript(
        Llama,
        '{"type": "function", "function": {"name": "get_weather", "parameters": {"city": "Paris"}}}',
        call('{"city": "Paris"}'),
    ),
    "llama 3.1, two calls": Transcript(
        Llama,
        '{"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "search", "parameters": {}}',
        [*call('{"city": "Paris"}'), *call("{}", "search")],
    ),
    "llama 3.1, a built-in tool": Transcript(
        Llama, '<|python_tag|>brave_search.call(query="x")', [("text", 'brave_search.call(query="x")')]
    ),
    "llama 3.1, JSON that is the answer": Transcript(
        Llama, ' {"city": "Paris", "people": 2102650}', [("text", ' {"city": "Paris", "people": 2102650}')]
    ),
    "llama 3.1, a name that is no tool's": Transcript(
        Llama, '{"name": "Ada", "born": 1815} is JSON.', [("text", '{"name": "Ada", "born": 1815} is JSON.')]
    ),
    "llama 3.1, no call": Transcript(Llama, "The <|python_tag|>.", [("text", "The <|python_tag|>.")]),
    "mistral 7B v0.3": Transcript(
        Mistral,
        '[TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}}]',
        call('{"city": "Paris"}'),
    ),
    "mistral nemo, two calls": Transcript(
        Mistral,
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}}, {"name": "search", "arguments": {}}]',
        [*call('{"city": "Paris"}'), *call("{}", "search")],
    ),
    "mistral small 3.1, an id too": Transcript(
        Mistral,
        '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "VvvODy9mT"}]',
        call('{"city": "Paris"}'),
    ),
    "mistral small 3.2": Transcript(
        Mistral, '[TOOL_CALLS]get_weather[CALL_ID]123456789[ARGS]{"city": "Paris"}', call('{"city": "Paris"}')
    ),
    "magistral, two calls": Transcript(
        Mistral,
        'Two tools.\n[TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]search[ARGS]{"query": "[x]"}',
        [("text", "Two tools."), *call('{"city": "Paris"}'), *call('{"query": "[x]"}', "search")],
    ),
    "mistral, a tool that there is not": Transcript(
        Mistral, "[TOOL_CALLS]fly[ARGS]{}", [("text", "[TOOL_CALLS]fly[ARGS]{}")]
    ),
    "mistral, no call": Transcript(Mistral, "A list: [1]. [TOOL", [("text", "A list: [1]. [TOOL")]),
    "generic, words": Transcript(
        Generic,
        '{"response": "Hi \\"you\\"\\n\\u00e9 \\ud83d\\ude00 \\u2028!"}',
        [("text", 'Hi "you"\n\u00e9 \U0001f600 \u2028!')],
    ),
    "generic, a call": Transcript(
        Generic, '{ "tool_call" : {"name": "search", "arguments": {"a": [1, {}]}}}', call('{"a": [1, {}]}', "search")
    ),
    "generic, neither": Transcript(Generic, '{"answer": 5}', [("text", '{"answer": 5}')]),
    "generic, no JSON": Transcript(Generic, "Paris.", [("text", "Paris.")]),
    "generic, cut in its words": Transcript(Generic, '{"response": "Par\\u00', [("text", "Par")]),
    "generic, cut before any": Transcript(Generic, '{"resp', [("text", '{"resp')]),
}


def read(reader: Reader, pieces: list[str]) -> list[Part]:
    return merged(
        part for piece in [*pieces, None] for part in (reader.finish() if piece is None else reader.feed(piece))
    )


def whole(parts: list[Part]) -> list[tuple[str, str]]:
    """The parts, with arguments unchanged, and re-encoded JSON compared as JSON."""
    return [(part.kind, part.text) for part in parts]


@pytest.mark.parametrize("transcript", TRANSCRIPTS.values(), ids=TRANSCRIPTS)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_an_answer_is_read_the_same_in_pieces_of_every_length(transcript: Transcript, size: int) -> None:
    text = transcript.text
    pieces = [text[n : n + size] for n in range(0, len(text), size)]
    found = whole(read(transcript.dialect("").reader(TOOLS), pieces))
    assert found == transcript.parts


@pytest.mark.parametrize("transcript", TRANSCRIPTS.values(), ids=TRANSCRIPTS)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("size", [1, 5, 1000])
def test_a_thought_goes_before_any_answer(transcript: Transcript, begun: bool, size: int) -> None:
    text = f"{'' if begun else '<think>'}\nHm. </thin\n\nYes.\n</think>\n\n{transcript.text.lstrip()}"
    pieces = [text[n : n + size] for n in range(0, len(text), size)]
    found = whole(read(ThinkingReader(transcript.dialect("").reader(TOOLS), begun=begun), pieces))
    first, *rest = transcript.parts
    assert found == [("thought", "Hm. </thin\n\nYes."), (first[0], first[1].lstrip()), *rest]


def test_an_answer_without_a_thought_and_a_thought_without_an_answer() -> None:
    assert read(ThinkingReader(None, begun=False), [" <t", "h", "e> "]) == [Part("text", " <the> ")]
    assert read(ThinkingReader(None, begun=True), ["Hm", ". \n"]) == [Part("thought", "Hm.")]
    assert read(ThinkingReader(None, begun=False), ["<think>", "\n\n</think>\n\n", "Hi"]) == [Part("text", "Hi")]


SCRAPS = (
    *("<tool_call>", "</tool_call>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<think>", "</think>", "<", "["),
    *(
        '{"name": "search"',
        ', "arguments": ',
        "{}",
        '{"a": "}"',
        "}",
        "]",
        ",",
        '"',
        "\\",
        " ",
        "\n",
        "search",
        "words",
    ),
    *('{"response": "', '{"tool_call": ', '{"name": "search", "parameters": {}}'),
)


@pytest.mark.parametrize("dialect", [*dialects.NATIVE, Generic])
def test_nonsense_is_read_the_same_in_pieces_and_nothing_of_it_is_lost(dialect: type[Dialect]) -> None:
    dice = random.Random(0)  # noqa: S311 - no secret
    for _ in range(2000):
        text = "".join(dice.choices(SCRAPS, k=dice.randint(1, 9)))
        at_once = read(dialect("").reader(TOOLS), [text])
        assert read(dialect("").reader(TOOLS), list(text)) == at_once, text
        if all(part.kind == "text" for part in at_once) and not text.lstrip().startswith('{"response"'):
            said = "".join(part.text for part in at_once)
            if dialect is Llama and text.lstrip().startswith("<|python_tag|>"):
                said, text = said.lstrip(), text.lstrip().removeprefix("<|python_tag|>").lstrip()
            assert said == text, text


def test_arguments_come_as_they_are_written() -> None:
    reader = Hermes("").reader(TOOLS)
    assert reader.feed('<tool_call>{"name": "search", "arguments": {"q') == [
        Part("call", "search"),
        Part("arguments", '{"q'),
    ]
    assert reader.feed('": "a}') == [Part("arguments", '": "a}')]


TEMPLATES = {
    "{%- if tools %}<tool_call>{%- endif %}<|im_start|>": Hermes,
    "{%- if tools %}[AVAILABLE_TOOLS]{%- endif %}[TOOL_CALLS]": Mistral,
    "{{- '<|start_header_id|>system' }}{%- if tools is not none %}": Llama,
    "<|start_header_id|>{{ messages }}": Generic,
    "{%- if tools %}<tool_call><function=x><parameter=y>": Generic,
    "<|im_start|>{{ messages }}": Generic,
    "": Generic,
}


@pytest.mark.parametrize(("template", "kind"), TEMPLATES.items())
def test_the_dialect_is_found_by_the_template(template: str, kind: type[Dialect]) -> None:
    assert type(dialects.of(template)) is kind
    assert not dialects.of(template).thinks
    assert dialects.of(template + "{{ '<think>' }}").thinks


WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}
SEARCH: dict[str, Any] = {"type": "function", "function": {"name": "search", "description": "Look.", "strict": True}}


def test_what_a_forced_answer_may_be() -> None:
    one = call_schema([WEATHER])
    assert one["properties"]["arguments"] == WEATHER["function"]["parameters"]
    assert one["required"] == ["name", "arguments"]
    assert [each["properties"]["name"]["const"] for each in call_schema([WEATHER, SEARCH])["anyOf"]] == [
        "get_weather",
        "search",
    ]
    assert [list(each["properties"]) for each in answer_schema([SEARCH])["anyOf"]] == [["response"], ["tool_call"]]


def test_a_conversation_with_tools_as_text() -> None:
    calls = (ToolCall("1", "get_weather", PARIS), ToolCall("2", "search", "{}"))
    conversation = [
        Message("system", "Be brief."),
        Message("user", "Weather?"),
        Message("assistant", "", calls),
        Message("tool", "18 degrees", call="1"),
        Message("tool", "nothing", call="2"),
        Message("user", "And?"),
    ]
    system, question, said, results = plain(conversation, ChatOptions(tools=(WEATHER, SEARCH)))
    assert system.role == "system"
    assert system.content.startswith("Be brief.\n\nYou have these tools")
    assert json.loads(system.content.splitlines()[4]) == {"name": "search", "description": "Look."}
    assert question == Message("user", "Weather?")
    assert said.content.splitlines()[0] == f'{{"tool_call": {{"name": "get_weather", "arguments": {PARIS}}}}}'
    assert results == Message("user", "Result of get_weather: 18 degrees\nResult of search: nothing\nAnd?")
    assert plain([Message("user", "Hi")], PLAIN) == [Message("user", "Hi")]
    assert plain([Message("system", ""), Message("user", "Hi")], PLAIN) == [Message("user", "Hi")]
