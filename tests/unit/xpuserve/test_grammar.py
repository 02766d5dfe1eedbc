"""Answers of a given form, from the logits of a model that does not know it."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import numpy
import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve import schemas
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import ByteTokenizer
from ansible_collections.xpu.fleet.tests.unit.xpuserve.tiny import END, VOCABULARY, TinyModel, request
from xpuserve import structured
from xpuserve.engine.grammar import GrammarError, Grammars
from xpuserve.engine.request import Request, SamplingParams
from xpuserve.engine.sampler import Sampler
from xpuserve.engine.scheduler import Scheduler
from xpuserve.structured import StructuredOutput, StructuredOutputError

#: Bytes, frequent parts of JSON, a special token, and two end-of-answer tokens.
TOKENS = [bytes([n]) for n in range(256)]
TOKENS += [
    text.encode() for text in ('{"', '":', '": "', '", "', '"}', "},", "]}", " {", "[{", "ame", "12", "true", "ö")
]
SPECIAL, *STOP = range(len(TOKENS), len(TOKENS) + 3)
TOKENS += [b"", b"", b""]
#: As models have them: more logits than tokens.
LOGITS = len(TOKENS) + 5


@pytest.fixture(scope="module")
def grammars() -> Grammars:
    return Grammars(TOKENS, STOP)


def answer(
    grammars: Grammars, output: StructuredOutput, seed: int = 0, most: int = 300, **options: Any
) -> tuple[str, bool]:
    """What a model answers that finds every token as likely as any, and whether the answer ended by itself."""
    random_logits = numpy.random.default_rng(seed)
    sampler = Sampler(SamplingParams(most, seed=seed, structured=output, **options), [], STOP, grammars)
    text = b""
    for _turn in range(most):
        token = sampler(random_logits.normal(size=LOGITS).astype(numpy.float32)).id
        if sampler.ends(token):
            return text.decode(), True
        text += TOKENS[token]
        if sampler.complete:
            return text.decode(), True
    return text.decode("utf-8", "replace"), False


FORMS = {
    "object": (StructuredOutput("json_object"), lambda text: isinstance(json.loads(text), dict)),
    "choice": (StructuredOutput("choice", '["Paris", "Größe \\n \\"x\\""]'), ["Paris", 'Größe \n "x"'].__contains__),
    "regex": (StructuredOutput("regex", "[0-9]{2}-[a-c]{1,3}"), re.compile("[0-9]{2}-[a-c]{1,3}").fullmatch),
    "Lark": (StructuredOutput("grammar", 'start: "a" start | "b"'), re.compile("a*b").fullmatch),
    "GBNF": (StructuredOutput("grammar", 'root ::= "a" root | "b"'), re.compile("a*b").fullmatch),
}


@pytest.mark.parametrize(("output", "is_one"), FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"top_k": 1, "frequency_penalty": 2.0}, {"min_p": 0.9}])
def test_an_answer_has_its_form(grammars: Grammars, output: StructuredOutput, is_one: Any, options: Any) -> None:
    ended = 0
    for seed in range(10):
        text, complete = answer(grammars, output, seed, **options)
        assert not complete or is_one(text), text
        ended += complete
    assert ended > 5


def test_every_answer_to_a_random_schema_is_valid_or_cut_off(grammars: Grammars) -> None:
    dice = random.Random(1)  # noqa: S311 - no secret
    taken = complete = 0
    for seed in range(300):
        wanted = schemas.schema(dice)
        asked = structured.asked({"json_schema": wanted})
        assert asked
        try:
            structured.check(asked)
        except StructuredOutputError:
            continue
        taken += 1
        text, ended = answer(grammars, asked.output, seed)
        assert not ended or schemas.is_valid(text, wanted), (wanted, text)
        complete += ended
    assert taken > 280
    assert complete > 200


def test_hostile_schemas_are_refused() -> None:
    dice = random.Random(2)  # noqa: S311 - no secret
    for _turn in range(300):
        wanted = schemas.hostile(dice)
        with pytest.raises(StructuredOutputError) as caught:
            structured.check(structured.asked({"json_schema": wanted}))  # type: ignore[arg-type]  # it asks for one
        # Refused by its kind, not after a timeout.
        assert "takes too long" not in str(caught.value), wanted


def test_what_may_not_come_next_has_no_chance(grammars: Grammars) -> None:
    mask = grammars.begin(StructuredOutput("choice", '["Paris"]'))
    masked = mask.masked(numpy.zeros(LOGITS, numpy.float32))
    assert numpy.flatnonzero(numpy.isfinite(masked)).tolist() == [ord("P")]


def test_any_of_the_model_s_ends_ends_an_answer(grammars: Grammars) -> None:
    mask = grammars.begin(StructuredOutput("regex", "a+"))
    mask.take(ord("a"))
    masked = mask.masked(numpy.zeros(LOGITS, numpy.float32))
    assert numpy.flatnonzero(numpy.isfinite(masked)).tolist() == [ord("a"), *STOP]
    mask.take(STOP[1])
    assert mask.complete


def test_a_token_that_may_not_come_is_an_error(grammars: Grammars) -> None:
    mask = grammars.begin(StructuredOutput("regex", "a+"))
    with pytest.raises(GrammarError):
        mask.take(ord("b"))


def test_answers_of_the_same_form_do_not_mix(grammars: Grammars) -> None:
    output = StructuredOutput("regex", "ab|cd")
    first, second = grammars.begin(output), grammars.begin(output)
    first.take(ord("a"))
    second.take(ord("c"))
    logits = numpy.zeros(LOGITS, numpy.float32)
    assert [int(mask.masked(logits).argmax()) for mask in (first, second)] == [ord("b"), ord("d")]


def test_a_vocabulary_that_nobody_can_read_has_no_grammars() -> None:
    class Unknown(ByteTokenizer):
        def pieces(self) -> list[str]:
            return ["a"] * 258

    assert Grammars.of(Unknown(), STOP) is None


LETTERS = [b"", *(bytes([ord("A") + n]) for n in range(1, VOCABULARY))]


def answers(*requests: Request) -> list[list[int]]:
    """What the tiny model answers these requests in one batch."""
    scheduler = Scheduler(
        TinyModel(),
        batch_requests=len(requests),
        batch_tokens=10**6,
        prefill_tokens=16,
        grammars=Grammars(LETTERS, [END]),
    )
    found: dict[Request, list[int]] = {each: [] for each in requests}
    running = list(requests)
    for each in requests:
        assert scheduler.fits(each)
        scheduler.add(each)
    while running:
        for output in scheduler.step():
            assert output.error is None
            found[output.request] += [token.id for token in output.tokens]
            if output.ended or len(found[output.request]) == output.request.sampling.max_tokens:
                running.remove(output.request)
                scheduler.drop(output.request)
    return list(found.values())


def test_rows_with_and_without_a_form_answer_in_a_batch_as_alone() -> None:
    forms = ["B{4}C*", None, "(BC|DE){2}", "[X-Z]{6}", None, "F"]
    prompts = [[5, 6, 7], [8] * 20, [9], [5, 6, 7], [11, 12], [13] * 7]
    outputs = [form and StructuredOutput("regex", form) for form in forms]
    together = answers(*(request(prompt, structured=output) for prompt, output in zip(prompts, outputs)))
    assert together == [answers(request(prompt, structured=output))[0] for prompt, output in zip(prompts, outputs)]
    texts = ["".join(chr(ord("A") + token) for token in tokens) for tokens in together]
    assert all(re.fullmatch(form, text) for form, text in zip(forms, texts) if form)
    assert texts[-1] == "F"  # and nothing was asked of the model to find that it ends there


def test_a_form_that_cannot_be_kept_to_ends_its_own_answer_alone() -> None:
    scheduler = Scheduler(
        TinyModel(), batch_requests=2, batch_tokens=10**6, prefill_tokens=16, grammars=Grammars(LETTERS, [END])
    )
    wrong = request([5], structured=StructuredOutput("regex", "0"))  # no token has it
    other = request([6])
    scheduler.add(wrong)
    scheduler.add(other)
    outputs = [*scheduler.step(), *scheduler.step()]
    assert [type(output.error) for output in outputs if output.request is wrong] == [GrammarError]
    assert [output.error for output in outputs if output.request is other] == [None]
