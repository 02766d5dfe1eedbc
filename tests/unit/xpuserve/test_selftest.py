"""Whether a library that batches by itself answers the same in a batch as alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_scheduler import (
    Broken,
    Crossed,
    FewRows,
    Infinite,
    Misplaced,
    NaN,
    Noisy,
    Unmasked,
    Zero,
)
from ansible_collections.xpu.fleet.tests.unit.xpuserve.tiny import TinyModel, TinyTokenizer
from xpuserve.engine import selftest
from xpuserve.engine.backend import EngineError
from xpuserve.engine.request import Token
from xpuserve.engine.runner import Output
from xpuserve.engine.sampler import LogitsError
from xpuserve.engine.scheduler import Scheduler

ROWS = 8


class Library(Scheduler):
    """Reads prompts and decodes rows in one step, as libraries do."""

    def step(self) -> Iterator[Output]:
        while self._prefills and self._left > 0:
            yield from super().step()
        yield from super().step()


def scheduler(model: type[TinyModel]) -> Scheduler:
    return Library(model(), batch_requests=ROWS, batch_tokens=10**6, prefill_tokens=100)


@pytest.mark.parametrize(
    ("model", "right"),
    [(TinyModel, True), (Noisy, True), (Unmasked, False), (Misplaced, False), (Crossed, False), (FewRows, False)],
)
def test_what_goes_wrong_among_others_is_found(
    model: type[TinyModel], right: bool, caplog: pytest.LogCaptureFixture
) -> None:
    runner = scheduler(model)
    assert selftest.runs_agree(runner, TinyTokenizer(), ROWS) is right
    assert ("one at a time" in caplog.text) is not right
    assert not runner._active()


class NaNTogether(TinyModel):
    """Gives numbers to one row alone."""

    def forward(self, ids: Any, *arguments: Any) -> Any:
        logits, cache = super().forward(ids, *arguments)
        return logits * (math.nan if len(ids) > 1 else 1), cache


def test_what_fails_among_others_is_found(caplog: pytest.LogCaptureFixture) -> None:
    runner = scheduler(NaNTogether)
    assert not selftest.runs_agree(runner, TinyTokenizer(), ROWS)
    assert "one at a time" in caplog.text
    assert not runner._active()


@pytest.mark.parametrize(
    ("model", "error"), [(NaN, LogitsError), (Infinite, LogitsError), (Zero, EngineError), (Broken, RuntimeError)]
)
def test_a_model_that_gives_garbage_alone_too_is_not_served(model: type[TinyModel], error: type[Exception]) -> None:
    with pytest.raises(error):
        selftest.runs_agree(scheduler(model), TinyTokenizer(), ROWS)


class Blind(Scheduler):
    """Reports NaN as log probabilities."""

    def step(self) -> Any:
        for output in super().step():
            yield output._replace(tokens=[token._replace(logprob=math.nan) for token in output.tokens])


def test_probabilities_that_are_no_numbers_are_found() -> None:
    runner = Blind(TinyModel(), batch_requests=ROWS, batch_tokens=10**6, prefill_tokens=100)
    with pytest.raises(EngineError, match="not numbers"):
        selftest.runs_agree(runner, TinyTokenizer(), ROWS)


@pytest.mark.parametrize(
    ("alone", "together", "parting"),
    [
        ([(1, -0.1), (2, -0.9)], [(1, -0.2), (2, -0.8)], 0),
        ([(1, -0.1), (2, -0.9), (3, -0.1)], [(1, -0.2), (4, -1.1), (5, -0.1)], 0),  # as likely as each other
        ([(1, -0.1), (2, -0.9)], [(1, -0.1), (4, -2.0)], 2),
        ([(1, -0.1), (2, -0.1)], [(3, -0.1), (2, -0.1)], 1),  # both cannot be
        ([(1, -0.1), (2, -0.1)], [(1, -0.1), (2, math.nan)], 2),
        ([(1, -0.1), (2, -0.1)], [(1, -0.1), (2, None)], 2),
        ([(1, -0.1), (2, -0.1)], [(1, -0.1)], 2),
    ],
)
def test_only_tokens_that_are_as_likely_may_stand_for_each_other(alone: Any, together: Any, parting: int) -> None:
    def answer(tokens: Any) -> list[Token]:
        return [Token(number, chance) for number, chance in tokens]

    assert selftest._parting(answer(alone), answer(together)) == parting
