"""Batching: whatever else is on the device, an answer is the same as for its prompt alone."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, Optional

import numpy
import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.tiny import (
    ROOM,
    VOCABULARY,
    TinyModel,
    TinyTokenizer,
    expected,
    request,
)
from xpuserve.engine import selftest
from xpuserve.engine.backend import EngineError
from xpuserve.engine.batch import Batch, Prefill
from xpuserve.engine.prefix import CONVERSATIONS, LEAST_TOKENS, PrefixCache
from xpuserve.engine.request import Request, SamplingParams
from xpuserve.engine.runner import OutOfMemoryError
from xpuserve.engine.sampler import LogitsError, Sampler
from xpuserve.engine.scheduler import Scheduler

# Two prompts whose answers are long.
LONG, OTHER = [
    next(
        prompt
        for length in range(20, 40)
        if len(expected(prompt := [n * step % 40 for n in range(1, length)], 30)) == 30
    )
    for step in (1, 3)
]


class Run:
    """Requests in a scheduler, and what they got."""

    def __init__(self, model: Optional[TinyModel] = None, **limits: Any) -> None:
        self.model = model or TinyModel()
        self.scheduler = Scheduler(
            self.model, **{"batch_requests": 8, "batch_tokens": 10000, "prefill_tokens": 16, **limits}
        )
        self.answers: dict[Request, list[int]] = {}
        self.errors: dict[Request, Exception] = {}
        self.running: list[Request] = []

    def add(self, *requests: Request) -> None:
        for each in requests:
            assert self.scheduler.fits(each)
            self.scheduler.add(each)
            self.answers[each] = []
            self.running.append(each)

    def drop(self, each: Request) -> None:
        self.running.remove(each)
        self.scheduler.drop(each)

    def step(self) -> dict[Request, int]:
        """How many tokens each request got."""
        got = {}
        for output in self.scheduler.step():
            each = output.request
            assert each in self.running
            got[each] = len(output.tokens)
            self.answers[each] += [token.id for token in output.tokens]
            if output.error:
                self.errors[each] = output.error
            if output.error or output.ended or len(self.answers[each]) == each.sampling.max_tokens:
                self.drop(each)
        return got

    def finish(self) -> None:
        while self.running:
            self.step()
        self.step()

    def answer(self, each: Request) -> list[int]:
        self.add(each)
        self.finish()
        return self.answers[each]


def is_right(run: Run, each: Request) -> bool:
    return run.answers[each] == expected(each.prompt, each.sampling.max_tokens)


@pytest.mark.parametrize("seed", range(200))
def test_whatever_comes_and_goes_every_answer_is_that_of_its_prompt_alone(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    run = Run(
        batch_requests=dice.randint(2, 8),
        batch_tokens=dice.choice([200, 10000]),
        prefill_tokens=dice.choice([1, 5, 64]),
    )
    run.model.most_cells = run.scheduler._running_tokens  # of which a copy alone has no more
    begun = [[dice.randrange(VOCABULARY) for _ in range(30)] for _ in range(2)]  # that several prompts share
    left = [
        request(
            dice.choice(begun)[: dice.choice([0, 20, 30])]
            + [dice.randrange(VOCABULARY) for _ in range(dice.randint(1, 30))],
            dice.randint(1, 20),
        )
        for _ in range(12)
    ]
    gone = set()
    while left or run.running:
        while left and dice.random() < 0.5 and run.scheduler.fits(left[0]):
            run.add(left.pop(0))
        run.step()
        if run.running and dice.random() < 0.1:
            gone.add(dice.choice(run.running))
            run.drop(next(each for each in run.running if each in gone))
    for each, answer in run.answers.items():
        whole = expected(each.prompt, each.sampling.max_tokens)
        assert answer == (whole[: len(answer)] if each in gone else whole)
    run.step()
    assert run.scheduler._batch.lengths == []
    assert run.errors == {}


def test_each_row_has_its_own_generator() -> None:
    sampling: dict[str, Any] = {"temperature": 1.5, "ignore_eos": True}
    alone = [Run().answer(request(LONG, seed=seed, **sampling)) for seed in (1, 2)]
    run = Run()
    together = [request(LONG, seed=seed, **sampling) for seed in (1, 2)]
    run.add(*together)
    run.finish()
    assert [run.answers[each] for each in together] == alone
    assert alone[0] != alone[1]


def test_no_more_rows_than_may() -> None:
    run = Run(batch_requests=2)
    run.add(request(LONG), request(OTHER))
    assert not run.scheduler.fits(request([1]))
    run.drop(run.running[0])
    assert run.scheduler.fits(request([1]))


def test_no_more_rows_than_the_cache_holds_with_their_padding_when_all_are_as_long_as_they_may_get() -> None:
    run = Run(batch_tokens=4 * (100 + ROOM))  # of which former conversations have a quarter
    run.add(request([1] * 50, 50), request([1], 1))
    assert run.scheduler.fits(request([1], 1))  # 3 rows of 100, with their room
    run.add(request([1], 1))
    assert not run.scheduler.fits(request([1], 1))


def test_a_request_that_is_larger_than_the_cache_is_served_alone() -> None:
    run = Run(batch_tokens=20)
    large = request(LONG, 30)
    run.answer(large)
    assert is_right(run, large)
    run.add(request([1], 1))
    assert not run.scheduler.fits(large)


def test_a_long_prompt_does_not_hold_up_the_answers_under_way() -> None:
    run = Run(prefill_tokens=4)
    quick, slow = request(LONG, 30), request(OTHER * 2, 5)
    run.add(quick)
    while len(run.answers[quick]) < 2:
        run.step()
    run.model.steps.clear()
    run.add(slow)
    steps = []
    while not run.answers[slow]:
        steps.append(run.step().get(quick, 0))
    assert steps == [0, 1] * (len(slow.prompt) // 4) + [0]
    assert len(slow.prompt) % 4
    assert max(tokens for _, tokens in run.model.steps) == 4
    run.finish()
    assert is_right(run, quick)
    assert is_right(run, slow)


def test_a_prompt_that_comes_while_others_are_decoded_has_its_token_before_their_next() -> None:
    run = Run()
    others, late = [request([n, n + 1], 30) for n in (1, 2)], request(LONG[:8], 5)
    run.add(*others)
    assert [list(run.step()) for _ in others] == [[each] for each in others]
    for _ in range(3):
        assert list(run.step()) == others
    run.add(late)
    assert run.step() == {late: 1}
    assert list(run.step()) == [*others, late]
    run.finish()
    assert all(is_right(run, each) for each in (*others, late))


def test_short_prompts_that_come_together_are_read_before_any_is_decoded() -> None:
    run = Run(prefill_tokens=15)
    together = [request([n, n + 1, n + 2]) for n in range(1, 6)]
    run.add(*together, late := request(LONG))
    assert [list(run.step()) for _ in together] == [[each] for each in together]
    assert list(run.step()) == together
    assert run.step() == {}
    assert list(run.step()) == together
    assert run.step() == {late: 1}


def test_a_prompt_of_a_client_with_less_is_read_first() -> None:
    run = Run(prefill_tokens=100)
    flood = [request([n, n + 1, n + 2]) for n in range(1, 5)]
    run.add(*flood)
    assert run.step() == {flood[0]: 1}
    other, more = request([7, 8]), request([8, 9])
    other.client = more.client = "other"
    run.add(other, more)
    assert [list(run.step()) for _ in range(5)] == [[other], [flood[1]], [more], [flood[2]], [flood[3]]]
    run.finish()
    assert all(is_right(run, each) for each in (*flood, other, more))


def test_padding_goes_with_the_row_that_needed_it() -> None:
    run = Run(prefill_tokens=100)
    short, long = request(LONG, 30), request(OTHER * 2, 3)
    run.add(short, long)
    while long in run.running:
        run.step()
    run.step()
    assert run.scheduler._batch.width == len(LONG) + len(run.answers[short]) - 1
    run.finish()
    assert is_right(run, short)


def test_the_next_turn_of_a_conversation_reads_only_what_is_new() -> None:
    run = Run()
    first = request(LONG, 30)
    answer = run.answer(first)
    assert first.times.cached == 0
    second = request([*LONG, *answer, 5, 6, 7])
    run.model.steps.clear()
    run.answer(second)
    # The answer's last token was chosen, but never read.
    assert second.times.cached == len(LONG) + len(answer) - 1
    assert run.model.steps[0] == (1, 4)
    assert is_right(run, second)


def test_a_prompt_that_leaves_a_conversation_half_way_has_the_part_before() -> None:
    run = Run()
    run.answer(request(LONG * 3))
    branch = request([*(LONG * 3)[:20], 1, 2, 3])
    run.answer(branch)
    assert is_right(run, branch)
    assert branch.times.cached == 20


def test_the_same_prompt_again_reads_its_last_token() -> None:
    run = Run()
    run.answer(request(LONG * 2))
    again = request(LONG * 2)
    run.answer(again)
    assert again.times.cached == len(LONG * 2) - 1
    assert is_right(run, again)


def test_several_answers_to_one_prompt_read_it_once() -> None:
    run = Run(prefill_tokens=200)
    together = [request(LONG * 2, seed=n, temperature=1.0) for n in range(3)]
    run.add(*together[:2])
    run.step()
    run.step()
    run.add(together[2])
    run.step()
    assert [each.times.cached for each in together] == [0, len(LONG * 2) - 1, len(LONG * 2) - 1]


def test_a_prompt_is_found_by_those_of_its_salt_alone() -> None:
    run = Run(prefill_tokens=200)
    own, same, other = (request(LONG * 2) for _ in range(3))
    own.salt = same.salt = "a"
    run.add(own)
    run.step()
    run.step()
    run.add(same, other)  # beside it
    run.step()
    run.step()
    run.step()
    for each in (own, same, other):
        run.drop(each)
    run.step()
    after = [request(LONG * 2) for _ in range(3)]
    for each, salt in zip(after, ("a", "", "b")):
        each.salt = salt
        run.answer(each)
    cached = [each.times.cached for each in (own, same, other, *after)]
    assert cached == [0, len(LONG * 2) - 1, 0, len(LONG * 2) - 1, len(LONG * 2) - 1, 0]


def test_what_is_kept_is_limited() -> None:
    kept = PrefixCache(100)
    kept.keep(range(60), "a")
    assert not kept.wants(range(50))
    assert not kept.wants(range(101))
    assert not kept.wants(range(100, 100 + LEAST_TOKENS - 1))
    kept.keep(range(61), "b")  # in place of "a"
    assert kept.tokens == 61
    kept.keep(range(200, 220), "c")
    assert kept.find(range(40)).cache == "b"  # type: ignore[union-attr]
    kept.keep(range(300, 330), "d")  # 111 together: what was used longest ago goes
    assert kept.tokens == 91
    assert kept.find(range(200, 220)) is None
    kept = PrefixCache(10000)
    for n in range(CONVERSATIONS + 1):
        kept.keep(range(n * 100, n * 100 + 20), n)
    assert kept.tokens == CONVERSATIONS * 20


def test_without_memory_for_all_the_newest_goes_and_the_others_go_on() -> None:
    run = Run()
    rows = [request([n, *LONG], 20, ignore_eos=True) for n in range(1, 5)]
    run.add(*rows)
    for _ in range(4):
        run.step()
    run.model.most_cells = 3 * (len(LONG) + 21 + ROOM)
    run.finish()
    assert list(run.errors) == rows[3:]
    assert isinstance(run.errors[rows[3]], OutOfMemoryError)
    assert run.model.freed
    run.model.most_cells = None
    reference = [Run().answer(request(row.prompt, 20, ignore_eos=True)) for row in rows[:3]]
    assert [run.answers[row] for row in rows[:3]] == reference


def test_without_memory_for_a_prompt_it_goes_and_later_ones_do_not() -> None:
    run = Run(prefill_tokens=8)
    large, small = request(OTHER * 3), request(LONG[:4])
    run.model.most_cells = len(OTHER) * 2
    run.add(large, small)
    run.finish()
    assert list(run.errors) == [large]
    assert is_right(run, small)


def test_former_conversations_go_before_any_request() -> None:
    run = Run()
    run.answer(request(OTHER))
    assert run.scheduler._kept.tokens
    row = request(LONG, 20)
    run.add(row)
    run.step()
    run.model.most_cells = 0
    run.step()
    assert run.scheduler._kept.tokens == 0
    run.model.most_cells = None
    run.finish()
    assert run.errors == {}
    assert is_right(run, row)


def test_a_prompt_that_the_model_cannot_read_fails_alone() -> None:
    run = Run()
    good, bad = request(LONG, 20), request(OTHER)
    run.add(good)
    run.step()
    run.model.fails_after = 3
    run.add(bad)
    run.finish()
    assert list(run.errors) == [bad]
    assert is_right(run, good)


def test_a_batch_that_the_model_cannot_decode_fails_and_the_next_is_served() -> None:
    run = Run()
    rows = [request(LONG), request(OTHER)]
    run.add(*rows)
    run.step()
    run.model.decodes = False
    run.finish()
    assert list(run.errors) == rows
    run.model.decodes = True
    run.answer(rows[0])
    assert is_right(run, rows[0])


def test_prompts_that_were_not_begun_are_served_after_a_batch_that_the_model_cannot_decode() -> None:
    run = Run(prefill_tokens=8)
    decoded, begun, waiting = request(LONG[:8]), request(OTHER * 2), request(LONG, 20)
    run.add(decoded)
    run.step()
    run.add(begun, waiting)
    run.step()
    run.step()
    run.model.decodes = False
    run.step()
    assert list(run.errors) == [decoded, begun]
    run.model.decodes = True
    run.finish()
    assert is_right(run, waiting)


@pytest.mark.parametrize(("decoded", "steps_between"), [(0, 0), (0, 1), (0, 2), (3, 1), (3, 2)])
def test_a_row_without_a_token_to_choose_fails_alone_and_leaves_nothing_to_others(
    decoded: int, steps_between: int
) -> None:
    """Its logits are NaN in its prefill, or after some tokens; another prompt that begins like it comes soon."""
    run = Run(prefill_tokens=100)
    good, bad, alike = request(LONG, 20), request([*OTHER, 9], 20), request([*OTHER, 9, 4], 20)
    run.add(good, bad)
    while len(run.answers[bad]) < decoded:
        run.step()
    run.model.blind = len(bad.prompt) + decoded
    if steps_between == 0:
        run.add(alike)
    while not run.errors:
        run.step()
    assert list(run.errors) == [bad]
    assert isinstance(run.errors[bad], LogitsError)
    run.model.blind = None
    if steps_between == 2:
        run.step()
    if steps_between:
        run.add(alike)
    run.finish()
    assert alike.times.cached == 0
    assert is_right(run, good)
    assert is_right(run, alike)


def test_how_full_the_cache_is() -> None:
    run = Run(batch_tokens=1000, prefill_tokens=100)
    assert run.scheduler.cache_usage == 0
    run.add(request(LONG), request(OTHER))
    run.step()
    run.step()
    run.step()
    batch = run.scheduler._batch
    assert run.scheduler.cache_usage == 2 * batch.width / 1000 > 0
    run.finish()
    assert run.scheduler._kept.tokens
    assert run.scheduler.cache_usage == 0


SERVED = selftest.Served(batch_requests=8, batch_tokens=10000, prefill_tokens=100, context_length=1000)


def generate(prompt: Any, sampling: SamplingParams, model: Optional[TinyModel] = None) -> Any:
    model = model or TinyModel()
    choose = Sampler(sampling, prompt)
    batch = Batch(model)
    prefill = Prefill(model, prompt)
    logits = prefill.read(1000)
    batch.change([], [prefill.part()])
    for _ in range(sampling.max_tokens):
        token = choose(logits)
        yield token
        logits = batch.decode([token.id])[0]


class Noisy(TinyModel):
    """Sums in another order."""

    def forward(self, *arguments: Any) -> Any:
        logits, cache = super().forward(*arguments)
        return logits + numpy.random.default_rng(len(self.steps)).normal(0, 0.02, logits.shape), cache


class Unmasked(TinyModel):
    """Sees the padding."""

    def forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> Any:
        return super().forward(ids, positions, numpy.ones_like(mask), cache)


class Misplaced(TinyModel):
    """Counts positions from the batch's first column, as BigDL's model does by itself."""

    def forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> Any:
        return super().forward(ids, numpy.zeros_like(positions) + positions.max(0), mask, cache)


class Crossed(TinyModel):
    """Right in a batch of one alone."""

    def forward(self, *arguments: Any) -> Any:
        logits, cache = super().forward(*arguments)
        return logits[::-1], cache


class FewRows(TinyModel):
    """Has a kernel of its own for more rows than four."""

    def forward(self, ids: Any, *arguments: Any) -> Any:
        logits, cache = super().forward(ids, *arguments)
        return (logits[::-1] if len(ids) > 4 else logits), cache


class ShortChunks(TinyModel):
    """Misplaces the second part of a prompt, where that has more than a few tokens."""

    def forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> Any:
        return super().forward(ids, positions - (cache is not None and ids.shape[1] > 5), mask, cache)


class NaN(TinyModel):
    """Logits of a kernel that reads uninitialised memory."""

    def forward(self, *arguments: Any) -> Any:
        logits, cache = super().forward(*arguments)
        return logits * numpy.nan, cache


class Infinite(TinyModel):
    def forward(self, *arguments: Any) -> Any:
        logits, cache = super().forward(*arguments)
        logits[:, 7] = numpy.inf
        return logits, cache


class Zero(TinyModel):
    """As a kernel gives that never ran."""

    def forward(self, *arguments: Any) -> Any:
        logits, cache = super().forward(*arguments)
        return logits * 0, cache


class Broken(TinyModel):
    def forward(self, *arguments: Any) -> Any:
        raise RuntimeError("no kernel image")


@pytest.mark.parametrize(
    ("model", "right"),
    [
        *((TinyModel, True), (Noisy, True), (Unmasked, False), (Misplaced, False), (Crossed, False), (Broken, False)),
        *((FewRows, False), (ShortChunks, False), (NaN, False), (Infinite, False), (Zero, False)),
    ],
)
def test_a_model_that_answers_otherwise_in_a_batch_is_found(
    model: type[TinyModel], right: bool, caplog: pytest.LogCaptureFixture
) -> None:
    assert selftest.agrees(generate, model(), TinyTokenizer(), SERVED) is right
    assert ("one at a time" in caplog.text) is not right


@pytest.mark.parametrize(
    ("model", "error"), [(NaN, LogitsError), (Infinite, LogitsError), (Zero, EngineError), (Broken, RuntimeError)]
)
def test_a_model_that_gives_garbage_alone_too_is_not_served(model: type[TinyModel], error: type[Exception]) -> None:
    def garbage(prompt: Any, sampling: SamplingParams) -> Any:
        return generate(prompt, sampling, model())

    with pytest.raises(error):
        selftest.agrees(garbage, model(), TinyTokenizer(), SERVED)


@pytest.mark.parametrize("rows", [2, 5, 8, 16])
def test_as_many_rows_are_tested_as_are_served_and_a_prompt_of_several_parts(rows: int) -> None:
    model = TinyModel()
    assert selftest.agrees(generate, model, TinyTokenizer(), replace(SERVED, batch_requests=rows))
    assert max(seen for seen, _ in model.steps) == rows
    parts = [tokens for _, tokens in model.steps if tokens > selftest.CHUNK]
    assert parts == [SERVED.prefill_tokens]
    assert len(model.steps) < 60  # however many rows: each prompt is read once


@pytest.mark.parametrize("tokens", [1, 30, 200, 600])
def test_the_test_takes_no_more_memory_than_rows_will(tokens: int) -> None:
    longest = max(map(len, selftest.TEXTS)) + selftest.TOKENS + ROOM
    model = TinyModel()
    model.most_cells = max(tokens, longest)  # one row always has room
    assert selftest.agrees(generate, model, TinyTokenizer(), replace(SERVED, batch_requests=16, batch_tokens=tokens))


@pytest.mark.parametrize("context", [16, 40])
def test_no_prompt_is_cut_to_nothing_or_longer_than_may_be(context: int) -> None:
    *_, (_, long, _) = selftest._questions(TinyTokenizer(), replace(SERVED, context_length=context))
    assert len(long) == context - selftest.TOKENS
