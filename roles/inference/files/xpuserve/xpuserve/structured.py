"""The form of an answer: what clients may request, and what is refused before any engine sees it.

llguidance compiles most grammars in a millisecond, but some take minutes. So this limits what makes it slow,
and measures the remaining time, outside of the engine's thread.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Optional

# Limits of a schema: its length as JSON; all values in it; their nesting; properties, references, and
# values of enum and const; characters of such a value; and the largest count or length.
MOST_CHARACTERS, MOST_NODES, MOST_DEPTH = 65536, 4000, 48
MOST_PROPERTIES, MOST_REFERENCES, MOST_VALUES, MOST_VALUE_CHARACTERS = 300, 100, 500, 1000
MOST_REPEATED, MOST_MULTIPLE = 1000, 1000
# Limits of a regular expression or grammar: its length, and its characters with all counts expanded.
MOST_EXPRESSION, MOST_WRITTEN_OUT = 4096, 4000
# CPU seconds for the grammar and its first mask; anything slower would delay an engine.
COMPILE_SECONDS = 0.25
# llguidance's limits for a step: a tenth to a half of its defaults.
LIMITS: dict[str, Any] = {
    "max_items_in_row": 1000,
    "initial_lexer_fuel": 500_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 20_000,
    "max_lexer_states": 50_000,
    "max_grammar_size": 50_000,
    "verbose_errors": False,
}
# At most one space between values and names: models of every size get lost in unlimited whitespace.
JSON_OPTIONS: Any = {"whitespace_flexible": False, "item_separator": ", ?", "key_separator": ": ?"}

_COUNTS = ("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties")
# Fields of a request that set a form, beside the two with several notations.
_KINDS = {
    "guided_json": "json_schema",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
    "json_schema": "json_schema",
    "grammar": "grammar",
}
FIELDS = ("response_format", "structured_outputs", *_KINDS)
# Lark features of unlimited size in a few words.
_EMBEDDED = re.compile(r"%\s*(json|regex|llguidance)\b")
_OUTPUTS = {"json": "json_schema", "regex": "regex", "choice": "choice", "grammar": "grammar"}


class StructuredOutputError(ValueError):
    """The form is not supported; `where` is its place in the request, and the message is for the client."""

    def __init__(self, where: str, problem: str) -> None:
        super().__init__(f"{where}: {problem}")
        self.where = where
        self.problem = problem

    def within(self, where: str) -> StructuredOutputError:
        """The same error, with this place of the form in the request."""
        return StructuredOutputError(where + self.where, self.problem)


@dataclass(frozen=True)
class StructuredOutput:
    """The form of an answer. `kind` is json_schema, json_object, regex, choice or grammar.

    `text` is the schema as JSON, the regular expression, the choices as a JSON array, or the grammar in Lark or GBNF.
    """

    kind: str
    text: str = ""

    def grammar(self) -> str:
        """The form as llguidance's grammar. Raises ValueError."""
        from llguidance import LLMatcher  # noqa: PLC0415 - most requests need none
        from llguidance.gbnf_to_lark import any_to_lark  # noqa: PLC0415

        if self.kind == "regex":
            return str(LLMatcher.grammar_from_regex(self.text))
        if self.kind == "choice":
            choices = " | ".join(json.dumps(choice, ensure_ascii=False) for choice in json.loads(self.text))
            return str(LLMatcher.grammar_from_lark(f"start: {choices}"))
        if self.kind == "grammar":
            return str(LLMatcher.grammar_from_lark(any_to_lark(self.text)))
        return str(LLMatcher.grammar_from_json_schema(self.schema(), overrides=JSON_OPTIONS))

    def schema(self) -> str:
        """The schema as JSON, for JSON kinds."""
        return self.text if self.kind == "json_schema" else '{"type":"object"}'


@dataclass(frozen=True)
class Asked:
    """A form, and its place in the request."""

    output: StructuredOutput
    where: str


def asked(fields: Mapping[str, Any]) -> Optional[Asked]:
    """The form in a request's fields, if any, only its types validated. Raises StructuredOutputError."""
    found = [*_response_format(fields.get("response_format")), *_outputs(fields.get("structured_outputs"))]
    for name, kind in _KINDS.items():
        if fields.get(name) not in (None, ""):
            found.append(_asked(kind, fields[name], name))
    if len(found) > 1:
        names = " and ".join(each.where for each in found)
        raise StructuredOutputError(found[1].where, f"an answer has one structure: {names} set two")
    return found[0] if found else None


def check(wanted: Asked) -> None:
    """Refuse forms that are unsupported or take too long; runs outside of the engine's thread.

    Raises StructuredOutputError.
    """
    problem = _problem(wanted.output)
    if problem:
        inner, message = problem
        raise StructuredOutputError(wanted.where + inner, message)


def _response_format(value: Any) -> Iterator[Asked]:
    kind = "text" if value is None else value.get("type")
    if kind == "json_object":
        schema = value.get("schema")  # llama.cpp's
        if schema is None:
            yield Asked(StructuredOutput("json_object"), "response_format")
        else:
            yield _asked("json_schema", schema, "response_format.schema")
    elif kind == "json_schema":
        wanted = value.get("json_schema")
        if not isinstance(wanted, dict) or wanted.get("schema") is None:
            raise StructuredOutputError("response_format.json_schema.schema", "it is missing")
        yield _asked("json_schema", wanted["schema"], "response_format.json_schema.schema")
    elif kind != "text":
        raise StructuredOutputError("response_format.type", f"{kind!r} is not text, json_object or json_schema")


def _outputs(value: Any) -> Iterator[Asked]:
    for name, wanted in (value or {}).items():
        if name in _OUTPUTS and wanted is not None:
            yield _asked(_OUTPUTS[name], wanted, f"structured_outputs.{name}")
        elif name == "json_object" and wanted:
            yield Asked(StructuredOutput("json_object"), "structured_outputs.json_object")
        elif name == "structural_tag" and wanted is not None:
            raise StructuredOutputError("structured_outputs.structural_tag", "this server does not support it")


def _asked(kind: str, value: Any, where: str) -> Asked:
    if kind == "json_schema":
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise StructuredOutputError(where, "it is not JSON") from None
        if not isinstance(value, dict):
            raise StructuredOutputError(where, "a schema must be a JSON object")
        value = {name: each for name, each in value.items() if name != "x-guidance"}  # options of the compiler
        try:
            return Asked(StructuredOutput(kind, json.dumps(value)), where)
        except RecursionError:
            raise StructuredOutputError(where, _deep()) from None
    if kind == "choice":
        if not (isinstance(value, list) and value and all(isinstance(choice, str) and choice for choice in value)):
            raise StructuredOutputError(where, "it must be a list of one or more non-empty strings")
        return Asked(StructuredOutput(kind, json.dumps(value)), where)
    if not (isinstance(value, str) and value):
        raise StructuredOutputError(where, "it must be a non-empty string")
    return Asked(StructuredOutput(kind, value), where)


@lru_cache(maxsize=256)
def _problem(output: StructuredOutput) -> Optional[tuple[str, str]]:
    """The problem of a form, and its place; None without one."""
    try:
        if output.kind == "json_schema":
            return _schema_problem(output)
        if output.kind == "choice":
            choices = json.loads(output.text)
            if len(choices) > MOST_VALUES or max(map(len, choices)) > MOST_VALUE_CHARACTERS:
                return "", f"more than {MOST_VALUES} choices, or one of more than {MOST_VALUE_CHARACTERS} characters"
        elif output.kind != "json_object":
            bound_expression(output.text, "")
            if output.kind == "grammar" and _EMBEDDED.search(output.text):
                return "", "a grammar cannot embed a schema or another expression: %json, %regex, %llguidance"
    except StructuredOutputError as error:
        return error.where, error.problem
    message = _refusal(output)
    return ("", message) if message else None


def _schema_problem(output: StructuredOutput) -> Optional[tuple[str, str]]:
    if len(output.text) > MOST_CHARACTERS:
        return "", f"a schema may have {MOST_CHARACTERS} characters as JSON"
    schema = json.loads(output.text)
    _bound_schema(schema)
    message = _refusal(output)
    return (_place(schema, message), message) if message else None


def _bound_schema(schema: Any) -> None:
    """Refuse a schema that llguidance would take long for. Raises StructuredOutputError."""
    counted = {"nodes": 0, "properties": 0, "references": 0, "values": 0}
    limits = {
        "nodes": (MOST_NODES, "values"),
        "properties": (MOST_PROPERTIES, "properties"),
        "references": (MOST_REFERENCES, "references"),
        "values": (MOST_VALUES, "values of enum and const"),
    }
    left: list[tuple[Any, str, int]] = [(schema, "", 0)]
    while left:
        node, where, depth = left.pop()
        if depth > MOST_DEPTH and isinstance(node, (dict, list)):
            raise StructuredOutputError(where, _deep())
        counted["nodes"] += 1
        if isinstance(node, dict):
            counted["properties"] += len(node["properties"]) if isinstance(node.get("properties"), dict) else 0
            counted["references"] += isinstance(node.get("$ref"), str)
            values = node["enum"] if isinstance(node.get("enum"), list) else [node["const"]] if "const" in node else []
            counted["values"] += len(values)
            _bound_keywords(node, values, where)
            left += [(value, f"{where}.{name}", depth + 1) for name, value in reversed(node.items())]
        elif isinstance(node, list):
            left += [(value, f"{where}[{n}]", depth + 1) for n, value in reversed(list(enumerate(node)))]
        for what, (most, name) in limits.items():
            if counted[what] > most:
                raise StructuredOutputError(where, f"the schema has more than {most} {name}")


def _bound_keywords(node: Mapping[str, Any], values: list[Any], where: str) -> None:
    for name in _COUNTS:
        if _is_number(node.get(name)) and not 0 <= node[name] <= MOST_REPEATED:
            raise StructuredOutputError(f"{where}.{name}", f"it must be 0 to {MOST_REPEATED}")
    multiple = node.get("multipleOf")
    if _is_number(multiple) and not (isinstance(multiple, int) and 0 < multiple <= MOST_MULTIPLE):
        raise StructuredOutputError(f"{where}.multipleOf", f"it must be a whole number from 1 to {MOST_MULTIPLE}")
    for value in values:
        if len(json.dumps(value)) > MOST_VALUE_CHARACTERS:
            raise StructuredOutputError(where, f"a value is longer than {MOST_VALUE_CHARACTERS} characters")
    if isinstance(node.get("pattern"), str):
        bound_expression(node["pattern"], f"{where}.pattern")
    patterns = node.get("patternProperties")
    for pattern in patterns if isinstance(patterns, dict) else ():
        bound_expression(pattern, f"{where}.patternProperties")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _deep() -> str:
    return f"it is nested deeper than {MOST_DEPTH} levels"


def bound_expression(text: str, where: str, most: int = MOST_WRITTEN_OUT) -> None:
    """Refuse a long regular expression or grammar, or one whose counts, written out, are; raises StructuredOutputError.

    {m,n} counts n times the group or character class before it. In a grammar, quotes
    are ignored, which refuses a little more than needed.
    """
    if len(text) > MOST_EXPRESSION:
        raise StructuredOutputError(where, f"it may have {MOST_EXPRESSION} characters")
    sizes, last, at = [0], 0, 0  # of the open groups, and of the last element
    while at < len(text):
        char, step = text[at], 1
        if char == "{" and (end := text.find("}", at)) > 0:
            counts = [count for count in text[at + 1 : end].split(",") if count.strip().isdecimal()]
            if counts:
                times = max(1, *(int(count) if len(count) < 10 else MOST_WRITTEN_OUT for count in counts))
                sizes[-1] += last * (times - 1)
                last *= times
                step = end + 1 - at
        elif char == "(":
            sizes.append(0)
        elif char == ")" and len(sizes) > 1:
            last = sizes.pop()
            sizes[-1] += last
        elif char == "[":
            step = _class_length(text, at)
            last = 1
            sizes[-1] += 1
        elif char not in "?*+|":
            step = 2 if char == "\\" else 1
            last = 1
            sizes[-1] += 1
        if max(sizes) > most:
            raise StructuredOutputError(where, f"written out, its counts give more than {most} characters")
        at += step


def _class_length(text: str, start: int) -> int:
    """Length of the character class that begins at `start`."""
    at = start + 1
    while at < len(text) and (text[at] != "]" or at == start + 1):
        at += 2 if text[at] == "\\" else 1
    return at + 1 - start


def _refusal(output: StructuredOutput) -> str:
    """llguidance's error about a form, in one line; empty without one."""
    from llguidance import LLMatcher, LLParserLimits  # noqa: PLC0415 - most requests need none

    began = time.thread_time()
    try:
        matcher = LLMatcher(_bytes_tokenizer(), output.grammar(), limits=LLParserLimits(**LIMITS), log_level=0)
    except Exception as error:  # of several kinds
        return _line(str(error))
    if not matcher.is_error():
        matcher.compute_bitmask()
    if matcher.is_error():
        return _line(matcher.get_error())
    return "it takes too long to compile: simplify it" if time.thread_time() - began > COMPILE_SECONDS else ""


def _line(text: str) -> str:
    """The text in one line, without the drawing below a regular expression."""
    return " ".join(part for part in text.split() if part.strip("^"))[:300] or "it cannot be compiled"


@lru_cache(maxsize=1)
def _bytes_tokenizer() -> Any:
    return library_tokenizer([bytes([n]) for n in range(256)], 256)


def library_tokenizer(tokens: Sequence[bytes], end: int) -> Any:
    """A vocabulary for llguidance: bytes by token, and the end-of-answer token, which may be beyond them."""
    from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415

    vocabulary = _Vocabulary(tokens, end)
    vocabulary.library = LLTokenizer(TokenizerWrapper(vocabulary))
    return vocabulary.library


class _Vocabulary:
    """The same in llguidance's interface. Tokens without bytes are special: no text has them."""

    bos_token_id = None

    def __init__(self, tokens: Sequence[bytes], end: int) -> None:
        known = [*tokens, *([b""] * (end + 1 - len(tokens)))]
        self.eos_token_id = end
        self.special_token_ids = [n for n, piece in enumerate(known) if not piece or n == end]
        self.tokens = [piece or f"<special {n}>".encode() for n, piece in enumerate(known)]
        self.library: Any = None

    def __call__(self, text: bytes) -> list[int]:
        """Token ids of a text that the grammar forces: any tokens with its bytes will do."""
        return list(self.library.greedy_tokenize(text.decode())) if self.library else []


def _place(schema: Any, message: str) -> str:
    """The place of the refusal in a schema: the deepest part that gives the same error by itself."""
    place, part = "", schema
    while True:
        for inner, each in _parts(part):
            whole = {**each, **{name: schema[name] for name in ("$defs", "definitions") if name in schema}}
            if _refusal(StructuredOutput("json_schema", json.dumps(whole))) == message:
                place, part = place + inner, each
                break
        else:
            return place


def _parts(schema: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The schemas in a schema, and their places."""
    for name, value in schema.items():
        if name in ("properties", "patternProperties", "$defs", "definitions") and isinstance(value, dict):
            yield from ((f".{name}.{key}", each) for key, each in value.items() if isinstance(each, dict))
        elif name in ("anyOf", "allOf", "oneOf", "prefixItems", "items") and isinstance(value, list):
            yield from ((f".{name}[{n}]", each) for n, each in enumerate(value) if isinstance(each, dict))
        elif name in ("items", "additionalProperties") and isinstance(value, dict):
            yield f".{name}", value
