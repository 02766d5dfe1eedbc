"""Messages between the service and the engine's process: each message is a type, encoded as a JSON array.

The service sends Load once, and then Add and Drop. The process sends Status while it loads, Ready once, and then a
Step after each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple, Optional, Union

from xpuserve.engine.request import SamplingParams, Token
from xpuserve.engine.runner import OutOfMemoryError, TooLargeError
from xpuserve.structured import StructuredOutput


class RemoteError(Exception):
    """A request failed in the engine's process; `kind` is the name of the error there."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


# Errors that the service handles separately.
_ERRORS: dict[str, type[Exception]] = {error.__name__: error for error in (OutOfMemoryError, TooLargeError)}


@dataclass(frozen=True)
class Load:
    """Load a model: the settings in their file's form, and the number of the instance."""

    settings: dict[str, Any]
    instance: int


@dataclass(frozen=True)
class Add:
    """Answer a prompt as soon as there is room for it."""

    id: int
    prompt: Sequence[int]
    sampling: SamplingParams
    salt: str = ""
    client: str = ""


@dataclass(frozen=True)
class Drop:
    """The answer is no longer wanted."""

    id: int


@dataclass(frozen=True)
class Status:
    """The process's work before it is ready, in words."""

    text: str


@dataclass(frozen=True)
class Ready:
    """The model is loaded; `batching` and `rows` are the Runner's, `offers` the Backend's."""

    batching: str
    rows: int
    offers: Sequence[str]


class Result(NamedTuple):
    """A step's result for one request. `cached`, with its first tokens, is the number of cached prompt tokens."""

    id: int
    tokens: Sequence[Token] = ()
    ended: bool = False
    cached: Optional[int] = None
    error: Optional[Exception] = None
    prompt: Sequence[Token] = ()


class Step(NamedTuple):
    """A step's results. `began` are the requests that got their place on the device since the last, and `usage` is the
    cache's fill level, from 0 to 1. `heard` is the number of Adds and Drops that the process has read.

    `tokens` are the results that are one token and nothing else, as most are: a request's id, its token's id, and so
    on. They come before the others.
    """

    results: Sequence[Result] = ()
    began: Sequence[int] = ()
    usage: float = 0.0
    heard: int = 0
    tokens: Sequence[int] = ()

    @classmethod
    def of(cls, results: Iterable[Result], began: Sequence[int], usage: float, heard: int) -> Step:
        """The same with `tokens` taken from the results, whose order is kept for each request."""
        tokens: list[int] = []
        others: list[Result] = []
        for result in results:
            plain = len(result.tokens) == 1 and result == Result(result.id, (Token(result.tokens[0].id),))
            if plain and all(other.id != result.id for other in others):
                tokens += (result.id, result.tokens[0].id)
            else:
                others.append(result)
        return cls(others, began, usage, heard, tokens)


ToEngine = Union[Load, Add, Drop]
ToService = Union[Status, Ready, Step]
_KINDS = {kind.__name__: kind for kind in (Load, Add, Drop, Status, Ready)}


def encode(message: Union[ToEngine, ToService]) -> list[Any]:
    """A message as JSON data."""
    if isinstance(message, Step):
        results = [_result(each) for each in message.results]
        return ["Step", results, list(message.began), message.usage, message.heard, list(message.tokens)]
    if isinstance(message, Add):
        return ["Add", message.id, list(message.prompt), asdict(message.sampling), message.salt, message.client]
    return [type(message).__name__, *(getattr(message, each.name) for each in fields(message))]


def decode(array: list[Any]) -> Union[ToEngine, ToService]:
    """Decode the JSON data of `encode`."""
    kind, *values = array
    if kind == "Step":
        results, began, usage, heard, tokens = values
        return Step(tuple([_of(each) for each in results]), tuple(began), usage, heard, tuple(tokens))
    if kind == "Add":
        number, prompt, sampling, *others = values
        if sampling["structured"]:
            sampling["structured"] = StructuredOutput(**sampling["structured"])
        params = SamplingParams(**{name: _frozen(value) for name, value in sampling.items()})
        return Add(number, prompt, params, *others)
    found: Union[ToEngine, ToService] = _KINDS[kind](*values)
    return found


def _result(result: Result) -> list[Any]:
    error = result.error and [type(result.error).__name__, str(result.error)]
    array = [result.id, _tokens(result.tokens), int(result.ended), result.cached, error]
    return [*array, *([_tokens(result.prompt)] if result.prompt else ())]


def _tokens(tokens: Sequence[Token]) -> list[Any]:
    return [token.id if token.logprob is None else [token.id, token.logprob, list(token.top)] for token in tokens]


def _of(array: list[Any]) -> Result:
    number, tokens, ended, cached, error, *prompt = array
    told = _read(prompt[0]) if prompt else ()
    return Result(number, _read(tokens), bool(ended), cached, _error(*error) if error else None, told)


def _read(tokens: Sequence[Any]) -> tuple[Token, ...]:
    return tuple(
        [
            Token(each) if isinstance(each, int) else Token(each[0], each[1], tuple(map(tuple, each[2])))
            for each in tokens
        ]
    )


def _error(kind: str, message: str) -> Exception:
    known = _ERRORS.get(kind)
    return known(message) if known else RemoteError(message, kind)


def _frozen(value: Any) -> Any:
    """The value with tuples in place of JSON's arrays."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
