"""The required form of answers: requests for it, and refusals before any engine sees it."""

from __future__ import annotations

import json
from typing import Any, Optional

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, FakeBackend
from fastapi.testclient import TestClient
from xpuserve import structured
from xpuserve.engine.messages import Add, decode, encode
from xpuserve.engine.request import SamplingParams
from xpuserve.structured import Asked, StructuredOutput, StructuredOutputError

PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
ASKED: dict[str, tuple[dict[str, Any], Optional[tuple[str, str]]]] = {
    "nothing": ({}, None),
    "a text": ({"response_format": {"type": "text"}}, None),
    "an empty grammar": ({"grammar": ""}, None),
    "any object": ({"response_format": {"type": "json_object"}}, ("json_object", "response_format")),
    "a schema": (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "p", "strict": True, "schema": PERSON}}},
        ("json_schema", "response_format.json_schema.schema"),
    ),
    "llama.cpp's": (
        {"response_format": {"type": "json_object", "schema": PERSON}},
        ("json_schema", "response_format.schema"),
    ),
    "llama.cpp's field": ({"json_schema": PERSON}, ("json_schema", "json_schema")),
    "vLLM's": ({"structured_outputs": {"json": PERSON}}, ("json_schema", "structured_outputs.json")),
    "vLLM's object": ({"structured_outputs": {"json_object": True}}, ("json_object", "structured_outputs.json_object")),
    "vLLM's, as text": ({"guided_json": '{"type": "integer"}'}, ("json_schema", "guided_json")),
    "a regular expression": ({"guided_regex": "[0-9]{4}-[0-9]{2}"}, ("regex", "guided_regex")),
    "choices": ({"guided_choice": ["Paris", "Größe \U0001f600", 'a "b"\n']}, ("choice", "guided_choice")),
    "Lark": ({"structured_outputs": {"grammar": 'start: "a" | "b" start'}}, ("grammar", "structured_outputs.grammar")),
    "GBNF": ({"grammar": 'root ::= "a" | "b" root'}, ("grammar", "grammar")),
}


@pytest.mark.parametrize(("fields", "expected"), ASKED.values(), ids=ASKED)
def test_a_request_asks_for_a_form(fields: dict[str, Any], expected: Optional[tuple[str, str]]) -> None:
    wanted = structured.asked(fields)
    assert (wanted and (wanted.output.kind, wanted.where)) == expected
    if wanted:
        structured.check(wanted)


def refusal(fields: dict[str, Any]) -> StructuredOutputError:
    """How the fields are refused."""
    with pytest.raises(StructuredOutputError) as caught:
        wanted = structured.asked(fields)
        assert wanted
        structured.check(wanted)
    return caught.value


def nested(levels: int) -> dict[str, Any]:
    """Lists of lists."""
    schema: dict[str, Any] = {"type": "integer"}
    for _turn in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "another type": ({"response_format": {"type": "xml"}}, "response_format.type"),
    "no schema": ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    "two": ({"guided_regex": "a", "guided_json": PERSON}, "guided_regex"),
    "tags": ({"structured_outputs": {"structural_tag": "x"}}, "structured_outputs.structural_tag"),
    "no JSON": ({"guided_json": '{"type'}, "guided_json"),
    "no object": ({"guided_json": "[1]"}, "guided_json"),
    "no choice": ({"guided_choice": []}, "guided_choice"),
    "an empty choice": ({"guided_choice": ["a", ""]}, "guided_choice"),
    "many choices": ({"guided_choice": [f"c{n}" for n in range(501)]}, "guided_choice"),
    "a number": ({"structured_outputs": {"regex": 5}}, "structured_outputs.regex"),
    "a wrong expression": ({"guided_regex": "(a"}, "guided_regex"),
    "counts in counts": ({"guided_regex": "((a{20}b){20}){20}"}, "guided_regex"),
    "a count of classes": ({"guided_regex": "[a-z]{5000}"}, "guided_regex"),
    "a wrong grammar": ({"guided_grammar": "start: nothing"}, "guided_grammar"),
    "a schema in a grammar": ({"grammar": 'start: %json {"type": "integer", "multipleOf": 1234567}'}, "grammar"),
    "a long grammar": ({"grammar": f'start: "{"a" * 5000}"'}, "grammar"),
    "a type that is none": ({"json_schema": {"type": "integr"}}, "json_schema"),
    "one within": (
        {"json_schema": {"properties": {"a": PERSON, "b": {"items": {"type": "integr"}}}}},
        "json_schema.properties.b.items",
    ),
    "one in a definition": (
        {"json_schema": {"$defs": {"n": {"anyOf": [{"type": "null"}, {"not": {}}]}}, "items": {"$ref": "#/$defs/n"}}},
        "json_schema.$defs.n.anyOf[1]",
    ),
    "a reference to nothing": ({"json_schema": {"items": {"$ref": "#/$defs/x"}}}, "json_schema.items"),
    "a reference elsewhere": ({"json_schema": {"$ref": "http://localhost/x"}}, "json_schema"),
    "many items": ({"json_schema": {"items": {}, "maxItems": 10**6}}, "json_schema.maxItems"),
    "a long text": ({"json_schema": {"properties": {"a": {"maxLength": 10**6}}}}, "json_schema.properties.a.maxLength"),
    "less than none": ({"json_schema": {"minItems": -1}}, "json_schema.minItems"),
    "multiples": ({"json_schema": {"type": "integer", "multipleOf": 1234567}}, "json_schema.multipleOf"),
    "small multiples": ({"json_schema": {"type": "number", "multipleOf": 1e-9}}, "json_schema.multipleOf"),
    "a pattern": ({"json_schema": {"pattern": "(a{1000}){1000}"}}, "json_schema.pattern"),
    "patterns of names": (
        {"json_schema": {"patternProperties": {"^(a{1000}){1000}$": {}}}},
        "json_schema.patternProperties",
    ),
    "many values": ({"json_schema": {"enum": list(range(501))}}, "json_schema"),
    "a long value": ({"json_schema": {"const": "x" * 1001}}, "json_schema"),
    "depth": ({"json_schema": nested(100)}, f"json_schema{'.items' * 49}"),
    "great depth": ({"json_schema": nested(900)}, f"json_schema{'.items' * 49}"),
    "size": ({"json_schema": {"description": "x" * 70000}}, "json_schema"),
    "contradiction": ({"json_schema": {"allOf": [{"type": "integer"}, {"type": "string"}]}}, "json_schema"),
}


@pytest.mark.parametrize(("fields", "where"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_to_is_refused_with_its_place(fields: dict[str, Any], where: str) -> None:
    error = refusal(fields)
    assert error.where == where
    assert str(error).startswith(f"{where}: ")
    assert "\n" not in str(error)


def test_what_takes_long_to_compile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structured, "COMPILE_SECONDS", 0)
    wanted = Asked(StructuredOutput("regex", "[a-z]{1,77}"), "guided_regex")
    with pytest.raises(StructuredOutputError, match="guided_regex: it takes too long to compile"):
        structured.check(wanted)


def test_options_of_the_compiler_are_not_the_client_s() -> None:
    wanted = structured.asked({"json_schema": {"type": "integer", "x-guidance": {"lenient": True}}})
    assert wanted
    assert "x-guidance" not in wanted.output.text


def test_a_form_reaches_the_engine_s_process() -> None:
    sampling = SamplingParams(
        5, structured=StructuredOutput("json_schema", '{"type": "integer"}'), stop_token_ids=(1, 2)
    )
    assert decode(json.loads(json.dumps(encode(Add(1, (5, 6), sampling))))) == Add(1, [5, 6], sampling)


def ask(client: TestClient, **more: Any) -> Any:
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Where?"}], **more}
    return client.post("/v1/chat/completions", json=body)


@pytest.fixture
def offered(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> FakeBackend:
    """An engine that has structured output, but for grammars."""
    monkeypatch.setattr(backend, "offers", frozenset({"structured_outputs"}))
    return backend


def test_the_engine_gets_the_form(client: TestClient, offered: FakeBackend) -> None:
    response = ask(client, guided_choice=["Paris"], stop_token_ids=[7])
    assert response.status_code == 200, response.text
    sampling = offered.seen[0][1]
    assert sampling.structured == StructuredOutput("choice", '["Paris"]')
    assert sampling.stop_token_ids == (7,)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"json_schema": {"type": "integr"}}, "json_schema"),
        ({"grammar": 'root ::= "a"'}, "grammar"),
        ({"guided_regex": "a", "ignore_eos": True}, "ignore_eos"),
        ({"guided_regex": "a", "min_tokens": 5}, "min_tokens"),
        ({"response_format": {}}, "response_format.type"),
    ],
)
def test_the_client_hears_what_is_wrong(
    client: TestClient, offered: FakeBackend, fields: dict[str, Any], param: str
) -> None:
    response = ask(client, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param
    assert not offered.seen
