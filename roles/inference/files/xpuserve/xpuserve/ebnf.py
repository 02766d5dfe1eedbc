"""The form of an answer as an EBNF grammar, for OpenVINO GenAI.

The library compiles grammars within the step that all requests share, for seconds if a text may have hundreds of
characters; a grammar that it cannot compile ends all requests; and its own grammar of a JSON schema allows endless
whitespace. So this makes a grammar that it compiles at once, without whitespace except for a space after
a comma or colon. Other forms are refused. The grammar may allow less than the schema, but nothing else.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from xpuserve.regex import class_of, expression
from xpuserve.structured import StructuredOutput, StructuredOutputError, bound_expression

# Limits: characters of a counted text, of all together, of an expression with its counts expanded, items of a list,
# and properties: the library needs a second for a multiple of these.
MOST_CHARACTERS, MOST_COUNTED, MOST_WRITTEN_OUT, MOST_ITEMS, MOST_PROPERTIES = 64, 128, 256, 100, 100
RULES = {
    "char": f'{class_of([(0, 31), (34, 34), (92, 92)], negated=True)} | "\\\\" ["\\\\/bfnrt]',
    "text": '"\\"" char* "\\""',
    "whole": '"0" | [1-9] [0-9]{0,15}',
    "integer": '"-"? whole',
    "number": '"-"? whole ("." [0-9]{1,15})?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "comma": '"," " "?',
    "colon": '":" " "?',
    "any": "text | number | boolean | null | object | array",
    "object": '"{" (text colon any (comma text colon any)*)? "}"',
    "array": '"[" (any (comma any)*)? "]"',
}
_SIMPLE = {"boolean": "boolean", "null": "null"}
# Keywords that exclude values in ways that a grammar cannot.
_REFUSED = (
    *("not", "if", "then", "else", "contains", "minContains", "maxContains", "propertyNames", "patternProperties"),
    *("dependentRequired", "dependentSchemas", "dependencies", "unevaluatedProperties", "unevaluatedItems"),
    *("uniqueItems", "minProperties", "maxProperties", "multipleOf", "prefixItems", "additionalItems", "$dynamicRef"),
)
# Keywords for each type; without a type, it is the first one with a keyword present.
_SAYS = {
    "object": ("properties", "required", "additionalProperties"),
    "array": ("items", "minItems", "maxItems"),
    "string": ("pattern", "minLength", "maxLength"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"),
}
_TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "null": type(None),
    "number": (int, float),
    "integer": int,
}


def grammar(output: StructuredOutput) -> str:
    """The grammar of a form, whose first rule is root. Raises StructuredOutputError with the place in the form."""
    if output.kind == "choice":
        return _written({"root": _either([_literal(choice) for choice in json.loads(output.text)])})
    if output.kind == "regex":
        bound_expression(output.text, "", MOST_WRITTEN_OUT)
        return _written({"root": expression(output.text, "")})
    if output.kind == "grammar":
        raise StructuredOutputError("", "this server's engine does not support it")
    return _Schema(json.loads(output.schema())).grammar()


def _written(rules: Mapping[str, str]) -> str:
    return "\n".join(f"{name} ::= {text}" for name, text in rules.items())


def _literal(text: str) -> str:
    """Exactly this text."""
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    parts = re.findall("[\x00-\x7f]+|[^\x00-\x7f]", text)
    return " ".join(
        '"' + "".join(escapes.get(char, char) for char in part) + '"'
        if part.isascii()
        else class_of([(ord(part),) * 2])
        for part in parts
    )


def _either(ways: Sequence[str]) -> str:
    return ways[0] if len(ways) == 1 else f"({' | '.join(ways)})"


class _Schema:
    """Converts a JSON schema to a grammar."""

    def __init__(self, schema: Any) -> None:
        self._root = schema
        self._rules: dict[str, str] = {}
        self._known: dict[str, str] = {}  # references, and their rules
        self._counted = self._properties = 0  # characters and properties
        self._depth = 0  # of objects and lists around the present one
        self._within: dict[str, int] = {}  # references in progress, and their depth

    def grammar(self) -> str:
        """See above."""
        root = self._value(self._root, "")
        return _written({"root": root, **self._rules, **RULES})

    def _rule(self, text: str) -> str:
        name = f"r{len(self._rules)}"
        self._rules[name] = text
        return name

    def _value(self, schema: Any, where: str) -> str:
        if schema is True or schema == {}:
            return "any"
        if not isinstance(schema, dict):
            raise StructuredOutputError(where, "no value matches it")
        for name in _REFUSED:
            if schema.get(name) not in (None, False, 0):
                raise StructuredOutputError(f"{where}.{name}", "this server's engine does not support it")
        kinds = schema.get("type")
        for name in ("$ref", "const", "enum", "anyOf", "oneOf", "allOf"):
            if name in schema:
                self._alone(schema, name, where)
                found: str = getattr(self, f"_{name.strip('$').lower()}")(schema, f"{where}.{name}")
                return found
        if isinstance(kinds, list):
            return _either([self._value({**schema, "type": kind}, where) for kind in kinds])
        kind = kinds or next((kind for kind, names in _SAYS.items() if any(name in schema for name in names)), "")
        if kind in ("integer", "number"):
            return self._number(schema, kind, where)
        if kind in ("object", "array"):
            self._depth += 1
            made = self._object(schema, where) if kind == "object" else self._array(schema, where)
            self._depth -= 1
            return made
        return self._string(schema, where) if kind == "string" else _SIMPLE.get(kind, "any")

    def _alone(self, schema: Mapping[str, Any], name: str, where: str) -> None:
        others = [said for names in _SAYS.values() for said in names if said in schema]
        others += [each for each in ("const", "enum", "anyOf", "oneOf", "allOf") if each in schema and each != name]
        if others:
            raise StructuredOutputError(
                f"{where}.{name}", f"this server's engine does not support it beside {others[0]}"
            )

    def _ref(self, schema: Mapping[str, Any], where: str) -> str:
        reference = schema["$ref"]
        if self._within.get(reference) == self._depth:
            raise StructuredOutputError(where, "it refers to itself directly")
        if reference not in self._known:
            self._known[reference] = self._rule("")
            self._within[reference] = self._depth
            self._rules[self._known[reference]] = self._value(self._referred(reference, where), where)
            del self._within[reference]
        return self._known[reference]

    def _referred(self, reference: str, where: str) -> Any:
        found = self._root
        try:
            if reference[:2] not in ("#", "#/"):
                raise ValueError
            for step in reference.split("/")[1:]:
                key = step.replace("~1", "/").replace("~0", "~")
                found = found[int(key)] if isinstance(found, list) else found[key]
        except (KeyError, IndexError, ValueError, TypeError):
            raise StructuredOutputError(
                where, "this server's engine supports references such as #/$defs/name"
            ) from None
        return found

    def _const(self, schema: Mapping[str, Any], where: str) -> str:
        return self._enum({**schema, "enum": [schema["const"]]}, where)

    def _enum(self, schema: Mapping[str, Any], where: str) -> str:
        kinds = schema.get("type") or list(_TYPES)
        kinds = kinds if isinstance(kinds, list) else [kinds]
        values = [value for value in schema["enum"] if any(_is_a(value, kind) for kind in kinds)]
        if not values:
            raise StructuredOutputError(where, "no value has the type")
        return _either([_literal(json.dumps(value, ensure_ascii=False)) for value in values])

    def _anyof(self, schema: Mapping[str, Any], where: str) -> str:
        ways = schema.get("anyOf") or schema["oneOf"]
        shared = {"type": schema["type"]} if "type" in schema else {}
        return _either([self._value({**shared, **way}, f"{where}[{n}]") for n, way in enumerate(ways)])

    _oneof = _anyof  # the alternatives checked before have no common value

    def _allof(self, schema: Mapping[str, Any], where: str) -> str:
        if len(schema["allOf"]) > 1:
            raise StructuredOutputError(where, "this server's engine supports it with one schema alone")
        return self._value(schema["allOf"][0], f"{where}[0]")

    def _object(self, schema: Mapping[str, Any], where: str) -> str:
        properties, required = schema.get("properties", {}), schema.get("required", [])
        more = schema.get("additionalProperties", True)
        inner = "any" if more is False else self._value(more, f"{where}.additionalProperties")
        self._properties += len(properties)
        if self._properties > MOST_PROPERTIES:
            raise StructuredOutputError(where, f"the schema has more than {MOST_PROPERTIES} properties")
        pairs = [(name, self._value(each, f"{where}.properties.{name}")) for name, each in properties.items()]
        pairs += [(name, inner) for name in required if name not in properties]
        if not pairs:
            pair = f"text colon {inner}"
            return '"{" "}"' if more is False else self._rule(f'"{{" ({pair} (comma {pair})*)? "}}"')
        written = [f"{_literal(json.dumps(name, ensure_ascii=False))} colon {value}" for name, value in pairs]
        needed = [name in required for name, _value in pairs]
        # What may follow the n-th property, and what may be the first: all up to the first required one.
        rest = ['""']
        for pair, must in zip(reversed(written[1:]), reversed(needed[1:])):
            rest.append(self._rule(f"comma {pair} {rest[-1]}" if must else f"(comma {pair})? {rest[-1]}"))
        rest.reverse()
        first = needed.index(True) + 1 if True in needed else len(written)
        ways = [f"{written[n]} {rest[n]}" for n in range(first)] + ([] if True in needed else ['""'])
        return self._rule(f'"{{" ({" | ".join(ways)}) "}}"')

    def _array(self, schema: Mapping[str, Any], where: str) -> str:
        least, most = _counts(schema, "minItems", "maxItems", MOST_ITEMS, where)
        item = self._rule(self._value(schema.get("items", True), f"{where}.items"))
        if most == 0:
            return '"[" "]"'
        more = "" if most == 1 else f"(comma {item}){{{max(0, least - 1)},{'' if most is None else most - 1}}}"
        return self._rule(f'"[" {item} {more} "]"' if least else f'"[" ({item} {more})? "]"')

    def _string(self, schema: Mapping[str, Any], where: str) -> str:
        least, most = _counts(schema, "minLength", "maxLength", MOST_CHARACTERS, where)
        if "pattern" not in schema:
            if most == 0:
                return '"\\"\\""'
            self._counted += most or least
            if self._counted > MOST_COUNTED:
                raise StructuredOutputError(where, f"its lengths add up to more than {MOST_COUNTED} characters")
            counted = "*" if (least, most) == (0, None) else f"{{{least},{'' if most is None else most}}}"
            return f'"\\"" char{counted} "\\""'
        if (least, most) != (0, None):
            raise StructuredOutputError(f"{where}.pattern", "this server's engine does not support it beside a length")
        bound_expression(schema["pattern"], f"{where}.pattern", MOST_WRITTEN_OUT)
        return f'"\\"" {expression(schema["pattern"], f"{where}.pattern", quoted=True)} "\\""'

    def _number(self, schema: Mapping[str, Any], kind: str, where: str) -> str:
        lows = [math.ceil(schema["minimum"])] if "minimum" in schema else []
        lows += [math.floor(schema["exclusiveMinimum"]) + 1] if "exclusiveMinimum" in schema else []
        highs = [math.floor(schema["maximum"])] if "maximum" in schema else []
        highs += [math.ceil(schema["exclusiveMaximum"]) - 1] if "exclusiveMaximum" in schema else []
        if not lows and not highs:
            return kind
        low, high = max(lows, default=None), min(highs, default=None)
        ways = list(_between(low, high, fractions=kind == "number"))
        if not ways:
            raise StructuredOutputError(where, "its limits contain no whole number")
        return _either(ways)


def _is_a(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES.get(kind, object)) and (not isinstance(value, bool) or kind == "boolean")


def _counts(schema: Mapping[str, Any], low: str, high: str, most: int, where: str) -> tuple[int, Optional[int]]:
    for name in (low, high):
        if schema.get(name, 0) > most:
            raise StructuredOutputError(f"{where}.{name}", f"this server's engine supports {most} at most")
    return int(schema.get(low, 0)), int(schema[high]) if high in schema else None


def _between(low: Optional[int], high: Optional[int], *, fractions: bool) -> Iterator[str]:
    """The numbers between two integers, inclusive; with a fraction if that stays between them."""
    if high is None or high >= 0:
        yield from _from(max(0, low or 0) if low is not None else 0, high, "", fractions=fractions)
    if low is None or low < 0:
        least = 0 if high is None or high >= 0 else -high
        if low is None:
            yield from _from(least, None, '"-" ', fractions=fractions)
        else:
            yield from _from(least, -low, '"-" ', fractions=fractions)


def _from(low: int, high: Optional[int], sign: str, *, fractions: bool) -> Iterator[str]:
    part = ' ("." [0-9]{1,6})?' if fractions else ""
    if high is None:
        yield f"{sign}{_either(list(_digits(low, None)))}{part}"
        return
    if high > low and fractions:
        yield f"{sign}{_either(list(_digits(low, high - 1)))}{part}"
        yield f'{sign}"{high}"'
    elif high >= low:
        yield f"{sign}{_either(list(_digits(low, high)))}"


def _digits(low: int, high: Optional[int]) -> Iterator[str]:
    """Non-negative integers, by their number of digits."""
    lengths = range(len(str(low)), len(str(low if high is None else high)) + 1)
    for length in lengths:
        least, most = 10 ** (length - 1) if length > 1 else 0, 10**length - 1
        yield from _same_length(str(max(low, least)), str(most if high is None else min(high, most)))
    if high is None:
        yield f"[1-9] [0-9]{{{len(str(low))},18}}"


def _same_length(low: str, high: str) -> Iterator[str]:
    if not low:
        yield '""'
    elif low[0] == high[0]:
        for rest in _same_length(low[1:], high[1:]):
            yield f'"{low[0]}" {rest}'
    else:
        first, last = int(low[0]), int(high[0])
        if set(low[1:]) - {"0"}:
            yield from (f'"{first}" {rest}' for rest in _same_length(low[1:], "9" * len(low[1:])))
            first += 1
        if set(high[1:]) - {"9"}:
            yield from (f'"{last}" {rest}' for rest in _same_length("0" * len(low[1:]), high[1:]))
            last -= 1
        if first <= last:
            yield f"[{first}-{last}]" + (f" [0-9]{{{len(low) - 1}}}" if low[1:] else "")
