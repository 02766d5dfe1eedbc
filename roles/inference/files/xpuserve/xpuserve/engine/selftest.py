"""Check that a model answers the same in a batch as alone; some drivers and kernels do not."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy

from xpuserve.engine.backend import EngineError, Model, Tokenizer
from xpuserve.engine.batch import Batch, Prefill
from xpuserve.engine.prompts import encode_text
from xpuserve.engine.request import Request, SamplingParams, Token
from xpuserve.engine.runner import Runner, Tokens

# Of different length, so that rows are padded.
TEXTS = (
    "The capital of France is",
    "One, two, three, four,",
    "Water freezes at zero degrees Celsius and boils at one hundred, so at twenty degrees it is",
    "Monday, Tuesday, Wednesday, Thursday,",
)
# More than the steps in which rows are added, so that all are present together.
TOKENS = 8
COMING_STEPS = 4
# Steps to read the short prompts: in service, a chunk may have any length.
CHUNK = 5
# Likeliest tokens of a step to compare: a model that finds all equally likely has read nothing.
LIKELIEST = 20
# Sums in another order give slightly other logits, and may swap two tokens that are almost equally likely. The allowed
# difference, in standard deviations of all logits; the likeliest token usually leads by several.
TOLERANCE = 0.25
# The same for a library that reports only the chosen tokens' probabilities, in natural logarithms.
NEAR = 0.5

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Served:
    """The planned service: rows at a time, tokens that their caches hold together, prompt tokens that
    are read at a time, and tokens that a request may have.
    """

    batch_requests: int
    batch_tokens: int
    prefill_tokens: int
    context_length: int


@dataclass(frozen=True)
class Known:
    """A prompt and the likeliest answer to it when run alone."""

    text: str
    prompt: Sequence[int]
    answer: Sequence[int]
    chunk: int


def agrees(
    generate: Callable[[Sequence[int], SamplingParams], Tokens], model: Model, tokenizer: Tokenizer, served: Served
) -> bool:
    """Whether known prompts get the same tokens from `generate`, one at a time, and from `model` in a batch.

    Raises the errors of `generate`, and EngineError if its answers are nonsense: then nothing can be served.
    """
    known = [
        Known(text, prompt, _alone(generate, prompt), chunk) for text, prompt, chunk in _questions(tokenizer, served)
    ]
    return _told(lambda: _disagreement(model, known, served))


def runs_agree(runner: Runner, tokenizer: Tokenizer, rows: int) -> bool:
    """The same for a library that batches by itself: one request at a time, and `rows` of them together.

    `runner` reports the chosen tokens' log probabilities, and is idle.
    """
    prompts = [encode_text(tokenizer, text) for text in TEXTS]
    alone = [answer for prompt in prompts for answer in _answers(runner, [prompt])]
    chances = {_chance(token) for answer in alone for token in answer}
    if not all(map(math.isfinite, chances)):
        raise EngineError("the model's probabilities are not numbers, so its answers would be garbage")
    if len(chances) == 1:
        raise EngineError("the model finds all tokens equally likely, so its answers would be garbage")
    asked = [n % len(prompts) for n in range(max(rows, len(prompts)))]

    def wrong() -> str:
        for n, answer in zip(asked, _answers(runner, [prompts[n] for n in asked])):
            if at := _parting(alone[n], answer):
                return f"{TEXTS[n]!r}, token {at}, among {rows} requests"
        return ""

    return _told(wrong)


def _told(find: Callable[[], str]) -> bool:
    """Whether no difference was found; logs one that was."""
    try:
        wrong = find()
    except Exception:
        log.exception("the batching test failed; requests are served one at a time")
        return False
    if wrong:
        log.error("the model answers differently in a batch, so requests are served one at a time: %s", wrong)
    return not wrong


def _answers(runner: Runner, prompts: Sequence[Sequence[int]]) -> list[list[Token]]:
    """The likeliest answers to prompts added over several steps; raises the error of any of them."""
    sampling = SamplingParams(TOKENS, temperature=0, ignore_eos=True, logprobs=0)
    requests = [Request("", list(prompt), sampling, lambda event: None) for prompt in prompts]
    answers: dict[Request, list[Token]] = {}
    running, waiting = set[Request](), list(requests)
    try:
        while running or waiting:
            for _turn in range(-(-len(requests) // COMING_STEPS)):
                if waiting and runner.fits(waiting[0]):
                    request = waiting.pop(0)
                    runner.add(request)
                    running.add(request)
                    answers[request] = []
            for output in runner.step():
                if output.error:
                    raise output.error
                answers[output.request] += output.tokens
                if output.ended or len(answers[output.request]) >= TOKENS:
                    running.discard(output.request)
                    runner.drop(output.request)
    finally:
        for request in running:
            runner.drop(request)
    return [answers[request] for request in requests]


def _parting(alone: Sequence[Token], together: Sequence[Token]) -> int:
    """The token, from 1, by which two answers differ more than they may; 0 if there is none.

    Of two almost equally likely tokens either may come, and the answers differ after that. Such two have the
    same probability, and neither has more than half.
    """
    if len(alone) != len(together):
        return 1 + min(len(alone), len(together))
    for at, (one, other) in enumerate(zip(alone, together), start=1):
        if not math.isfinite(_chance(other)):
            return at
        if one.id != other.id:
            likeliest = max(_chance(one), _chance(other))
            near = abs(_chance(one) - _chance(other)) <= NEAR and likeliest <= math.log(0.5) + NEAR
            return 0 if near else at
    return 0


def _chance(token: Token) -> float:
    return math.nan if token.logprob is None else token.logprob


def _questions(tokenizer: Tokenizer, served: Served) -> list[tuple[str, list[int], int]]:
    """Texts, their tokens, and how many are read at a time; the last one takes several steps if possible."""
    questions = [(text, encode_text(tokenizer, text), CHUNK) for text in TEXTS]
    most = max(1, min(served.prefill_tokens + CHUNK, served.context_length - TOKENS, served.batch_tokens - TOKENS))
    text = " ".join(TEXTS * (1 + most // len(TEXTS)))  # no text has less than a token
    return [*questions, ("a long prompt", encode_text(tokenizer, text)[:most], served.prefill_tokens)]


def _alone(generate: Callable[[Sequence[int], SamplingParams], Tokens], prompt: Sequence[int]) -> list[int]:
    """The likeliest answer to a prompt when run alone."""
    tokens = []
    for token in generate(prompt, SamplingParams(TOKENS, temperature=0, ignore_eos=True, logprobs=LIKELIEST)):
        if not isinstance(token, Token):
            continue
        if len({chance for _ignored, chance in token.top}) == 1:
            raise EngineError("the model finds all tokens equally likely, so its answers would be garbage")
        tokens.append(token.id)
    return tokens


@dataclass(eq=False)
class _Row:
    """A prompt in the batch, and how many tokens of its answer were compared."""

    known: Known
    compared: int = 0

    def differs(self, logits: Any) -> bool:
        """Whether these logits prefer another token than the answer's next."""
        expected = self.known.answer[self.compared]
        self.compared += 1
        with numpy.errstate(invalid="ignore"):
            spread = logits.std()  # NaN if a logit is not finite, and 0 if all are the same: neither is an answer
            return not (spread > 0 and logits.max() - logits[expected] <= TOLERANCE * spread)


def _disagreement(model: Model, known: Sequence[Known], served: Served) -> str:
    """Where the batch first prefers another token than the one chosen alone; empty if it never does.

    The batch always reads the tokens that were chosen alone. It has as many rows as the service will have, if they
    have room together, repeating the short prompts. They come in several steps, and leave when their answers are
    complete, while others go on.
    """
    *short, long = known
    others = max(served.batch_requests, len(known)) - 1
    coming = -(-served.batch_requests // COMING_STEPS)
    waiting = [_Row(short[n % len(short)]) for n in range(others)] + [_Row(long)]
    read: dict[int, Prefill] = {}  # by the object: a batch copies what it is given
    batch, rows = Batch(model), list[_Row]()
    while waiting or rows:
        keep = [at for at, row in enumerate(rows) if row.compared < TOKENS]
        rows, new = [rows[at] for at in keep], list[_Row]()
        while waiting and len(new) < coming and _fits(model, [*rows, *new, waiting[0]], served):
            row = waiting.pop(0)
            new.append(row)
            logits = None
            if id(row.known) not in read:
                prefill = read[id(row.known)] = Prefill(model, row.known.prompt)
                while prefill.left:
                    logits = prefill.read((prefill.left - 1) % row.known.chunk + 1)  # the last parts are whole ones
            if logits is None:
                row.compared += 1
            elif row.differs(logits):
                return f"{row.known.text!r}, when its prompt is read in parts"
        batch.change(keep, [read[id(row.known)].part() for row in new])
        rows += new
        if rows:
            logits = batch.decode([row.known.answer[row.compared - 1] for row in rows])
            if wrong := [row for row, after in zip(rows, logits) if row.differs(after)]:
                return f"{wrong[0].known.text!r}, token {wrong[0].compared}, in a batch of {len(rows)}"
    return ""


def _fits(model: Model, rows: Sequence[_Row], served: Served) -> bool:
    longest = max(len(row.known.prompt) for row in rows) + TOKENS + model.room
    return len(rows) == 1 or (len(rows) <= served.batch_requests and len(rows) * longest <= served.batch_tokens)
