"""Grammars for OpenVINO GenAI, tested in llguidance, which reads the same EBNF."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve import schemas
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_grammar import STOP, TOKENS, answer
from xpuserve import ebnf
from xpuserve.engine.grammar import Grammars
from xpuserve.structured import StructuredOutput, StructuredOutputError


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENS, STOP)


def written(kind: str, form: Any) -> StructuredOutput:
    """A form as a grammar for OpenVINO."""
    return StructuredOutput(
        "grammar", ebnf.grammar(StructuredOutput(kind, form if kind == "regex" else json.dumps(form)))
    )


def answers(grammars: Grammars, kind: str, form: Any, seeds: int = 12) -> list[str]:
    """Some complete answers of a form."""
    made = [answer(grammars, written(kind, form), seed) for seed in range(seeds)]
    found = [text for text, complete in made if complete]
    assert found
    return found


def test_every_answer_to_a_random_schema_is_valid_or_cut_off(grammars: Grammars) -> None:
    dice = random.Random(1)  # noqa: S311 - no secret
    taken = complete = 0
    for seed in range(150):
        wanted = schemas.schema(dice)
        try:
            output = written("json_schema", wanted)
        except StructuredOutputError:
            continue
        taken += 1
        text, ended = answer(grammars, output, seed)
        assert not ended or schemas.is_valid(text, wanted), (wanted, text, output.text)
        complete += ended
    assert taken > 130
    assert complete > 100


NUMBERS = [
    {"minimum": 0, "maximum": 0},
    {"minimum": 7, "maximum": 12345},
    {"minimum": -130, "maximum": 27},
    {"minimum": -40, "maximum": -7},
    {"exclusiveMinimum": 99, "exclusiveMaximum": 102},
    {"minimum": 95},
    {"maximum": -95},
    {"minimum": 1.5, "maximum": 8.5},
]


@pytest.mark.parametrize("limits", NUMBERS, ids=str)
@pytest.mark.parametrize("kind", ["integer", "number"])
def test_numbers_keep_their_limits(grammars: Grammars, kind: str, limits: dict[str, Any]) -> None:
    wanted = {"type": kind, **limits}
    assert all(schemas.is_valid(text, wanted) for text in answers(grammars, "json_schema", wanted, 40))


EXPRESSIONS = [
    "[a-f0-9]{4}(-[A-Z]+?)*",
    r"\d{1,3}\.\w",
    "Paris|R[^a-z]me",
    r"a\s?b.",
    "(?:é|ö)+",
    r"[\]\-^]x",
    "^ab$|c",
    r"\D\\",
    "",
]


@pytest.mark.parametrize("form", EXPRESSIONS)
def test_expressions_match(grammars: Grammars, form: str) -> None:
    assert all(re.fullmatch(form, text) for text in answers(grammars, "regex", form))


@pytest.mark.parametrize("pattern", ["^[a-z]{2,3}$", "[0-9]{3}", "^(a|b)$", r"\S.", "^[!-~]{2}$"])
def test_patterns_are_found_in_texts(grammars: Grammars, pattern: str) -> None:
    wanted = {"type": "string", "pattern": pattern}
    assert all(schemas.is_valid(text, wanted) for text in answers(grammars, "json_schema", wanted))


def test_choices(grammars: Grammars) -> None:
    choices = ["Paris", 'Größe \n "x\\"', "]{"]
    assert set(answers(grammars, "choice", choices)) == set(choices)


def test_whitespace_ends(grammars: Grammars) -> None:
    texts = answers(
        grammars, "json_schema", {"type": "object", "properties": {"a": {"type": "array", "items": {"type": "null"}}}}
    )
    assert not [text for text in texts if re.search(r"\s\s|[\n\t]", text)]


REFUSED: dict[str, tuple[str, Any, str]] = {
    "a grammar": ("grammar", "start: a", ""),
    "a long text": (
        "json_schema",
        {"properties": {"a": {"type": "string", "maxLength": 65}}},
        ".properties.a.maxLength",
    ),
    "many items": ("json_schema", {"items": {}, "minItems": 101}, ".minItems"),
    "multiples": ("json_schema", {"anyOf": [{"type": "integer", "multipleOf": 5}]}, ".anyOf[0].multipleOf"),
    "names by pattern": ("json_schema", {"patternProperties": {"a": {}}}, ".patternProperties"),
    "both": ("json_schema", {"anyOf": [{}], "properties": {}}, ".anyOf"),
    "several": ("json_schema", {"allOf": [{}, {}]}, ".allOf"),
    "length and pattern": ("json_schema", {"pattern": "a", "maxLength": 5}, ".pattern"),
    "nothing between": ("json_schema", {"type": "integer", "minimum": 1.2, "maximum": 1.8}, ""),
    "no value": ("json_schema", {"items": False}, ".items"),
    "none of the type": ("json_schema", {"type": "string", "enum": [1]}, ".enum"),
    "itself": ("json_schema", {"$ref": "#"}, ".$ref.$ref"),
    "itself, in a circle": (
        "json_schema",
        {"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}]}}},
        ".$ref.anyOf[1].$ref",
    ),
    "an anchor": ("json_schema", {"$ref": "#here", "$defs": {"a": {"$anchor": "here"}}}, ".$ref"),
    "many characters": (
        "json_schema",
        {"properties": {str(n): {"type": "string", "maxLength": 60} for n in range(3)}},
        ".properties.2",
    ),
    "many properties": (
        "json_schema",
        {"properties": {"a": {"properties": {str(n): {} for n in range(100)}}}},
        ".properties.a",
    ),
    "a long expression": ("regex", "[a-z]{300}", ""),
    "a quote": ("json_schema", {"pattern": '"'}, ".pattern"),
    **{
        form: ("regex", form, "")
        for form in ("(?i)a", r"\bx", r"\p{L}", "a**", "(a", "a)", "[a&&b]", "a{,3}", "[b-a]", "[", r"[\D]", "a^b")
    },
}


@pytest.mark.parametrize(("kind", "form", "where"), REFUSED.values(), ids=REFUSED)
def test_what_the_library_may_not_compile_is_refused(kind: str, form: Any, where: str) -> None:
    with pytest.raises(StructuredOutputError) as caught:
        written(kind, form)
    assert caught.value.where == where
