"""Random JSON schemas: some as clients send them, and some that would take an engine's time or break it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its types are a package of their own

WORDS = ("name", "age", "city", "tags", "Größe", "a b", 'q"', "π", "id", "pattern", "type")
PATTERNS = ("^[a-z]{2,5}$", "^[0-9]{4}-[0-9]{2}$", "^(yes|no)$", r"^\d{1,3}$")
VALUES: tuple[Any, ...] = ("red", "green", "", 'a "quoted"\n', "Größe", 1, -2.5, None, True)


def schema(dice: random.Random, depth: int = 3) -> dict[str, Any]:
    """A schema as clients send them."""
    made = _value(dice, depth)
    if dice.random() < 0.2:
        made = {"$defs": {"part": _value(dice, 1)}, **_object(dice, 1, {"$ref": "#/$defs/part"})}
    return made


def _value(dice: random.Random, depth: int) -> dict[str, Any]:
    simple: list[Callable[[random.Random], dict[str, Any]]] = [_text, _number, _choice]
    if depth > 0 and dice.random() < 0.7:
        return dice.choice([_object, _list, _either])(dice, depth)
    return dice.choice(simple)(dice)


def _text(dice: random.Random) -> dict[str, Any]:
    least = dice.randint(0, 4)
    ways: list[dict[str, Any]] = [
        {},
        {"maxLength": dice.randint(0, 12)},
        {"minLength": least, "maxLength": least + dice.randint(0, 8)},
        {"pattern": dice.choice(PATTERNS)},
    ]
    return {"type": "string", **dice.choice(ways)}


def _number(dice: random.Random) -> dict[str, Any]:
    kind = dice.choice(["integer", "integer", "number", "boolean", "null"])
    if kind == "integer" and dice.random() < 0.5:
        least = dice.randint(-50, 50)
        return {"type": kind, "minimum": least, "maximum": least + dice.randint(0, 300)}
    return {"type": kind}


def _choice(dice: random.Random) -> dict[str, Any]:
    if dice.random() < 0.3:
        return {"const": dice.choice(VALUES)}
    return {"enum": dice.sample(VALUES, dice.randint(1, 4))}


def _list(dice: random.Random, depth: int) -> dict[str, Any]:
    least = dice.randint(0, 2)
    most = {"maxItems": least + dice.randint(0, 3)} if dice.random() < 0.7 else {}
    return {"type": "array", "items": _value(dice, depth - 1), "minItems": least, **most}


def _either(dice: random.Random, depth: int) -> dict[str, Any]:
    return {"anyOf": [_value(dice, depth - 1) for _turn in range(dice.randint(1, 3))]}


def _object(dice: random.Random, depth: int, one: Any = None) -> dict[str, Any]:
    names = dice.sample(WORDS, dice.randint(1, 4))
    made: dict[str, Any] = {"type": "object", "properties": {name: _value(dice, depth - 1) for name in names}}
    if one:
        made["properties"][names[0]] = one
    made["required"] = names if dice.random() < 0.7 else dice.sample(names, dice.randint(0, len(names)))
    if dice.random() < 0.7:
        made["additionalProperties"] = False
    return made


def hostile(dice: random.Random) -> dict[str, Any]:
    """A schema that no server should take, at some place in one that it should."""
    return _hidden(dice, dice.choice(_HOSTILE)(dice))


def _hidden(dice: random.Random, what: dict[str, Any]) -> dict[str, Any]:
    for _turn in range(dice.randint(0, 3)):
        inner = what
        ways: list[dict[str, Any]] = [
            {"type": "object", "properties": {dice.choice(WORDS): inner}},
            {"type": "array", "items": inner},
            {"anyOf": [{"type": "integer"}, inner]},
        ]
        what = dice.choice(ways)
    return what


def _nested(dice: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _turn in range(dice.randint(60, 400)):
        made = dice.choice([{"items": made}, {"anyOf": [made]}, {"properties": {"a": made}}])
    return made


_HOSTILE: tuple[Callable[[random.Random], dict[str, Any]], ...] = (
    _nested,
    lambda dice: {"type": "array", "maxItems": dice.randint(10**4, 10**9), "items": {}},
    lambda dice: {"type": "array", "minItems": dice.randint(10**4, 10**9)},
    lambda dice: {"type": "string", "maxLength": dice.randint(10**4, 10**9)},
    lambda dice: {"type": "integer", "multipleOf": dice.randint(10**5, 10**8)},
    lambda dice: {"type": "number", "multipleOf": 10.0 ** -dice.randint(5, 300)},
    lambda dice: {"type": "string", "pattern": f"(a{{{dice.randint(100, 999)}}}){{{dice.randint(100, 999)}}}"},
    lambda dice: {"type": "string", "pattern": "(" * dice.randint(1, 300) + "a+" + ")+" * dice.randint(301, 400)},
    lambda dice: {"type": "string", "pattern": "(?=a)" * dice.randint(1, 50)},
    lambda dice: {"type": "string", "pattern": "".join(f"[^{chr(97 + n % 26)}]*" for n in range(3000))},
    lambda dice: {"enum": [f"value {n}" for n in range(dice.randint(600, 5000))]},
    lambda dice: {"const": "x" * dice.randint(2000, 50000)},
    lambda dice: {"properties": {f"p{n}": {"type": "string"} for n in range(dice.randint(400, 2000))}},
    lambda dice: {"type": dice.choice(["integr", 5, {}, "object "])},
    lambda dice: {"$ref": dice.choice(["#/nowhere", "http://127.0.0.1/x", "file:///etc/passwd", 5])},
    lambda dice: {dice.choice(["not", "if", "contains", "propertyNames"]): {"type": "string"}, "type": "array"},
    lambda dice: {"properties": dice.choice([5, [], "a", {"a": 5}])},
    lambda dice: {"required": dice.choice([5, "a", [5]])},
    lambda dice: {"anyOf": [{"$ref": "#/$defs/x"}] * dice.randint(200, 400), "$defs": {"x": {"type": "null"}}},
    lambda dice: {"description": "x" * 70000},
)


def is_valid(answer: str, wanted: dict[str, Any]) -> bool:
    """Whether an answer is JSON, and as the schema says."""
    try:
        jsonschema.validate(json.loads(answer), wanted, jsonschema.Draft202012Validator)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True
