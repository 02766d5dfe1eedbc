from __future__ import annotations

from collections import Counter
from typing import Any

import numpy
import pytest
from xpuserve.engine.request import SamplingParams
from xpuserve.engine.sampler import LogitsError, Sampler

LOGITS = numpy.array([1, 3, 2, -1, 0], numpy.float32)


def draw(logits: Any = LOGITS, count: int = 400, **sampling: Any) -> Counter[int]:
    """How often each token is chosen as the first of an answer."""
    return Counter(
        Sampler(SamplingParams(1, **{"seed": seed, **sampling}), prompt=[])(numpy.asarray(logits, numpy.float32)).id
        for seed in range(count)
    )


def answer(count: int, prompt: tuple[int, ...] = (), **sampling: Any) -> list[int]:
    sampler = Sampler(SamplingParams(count, **{"temperature": 0, **sampling}), prompt)
    return [sampler(LOGITS).id for _ in range(count)]


def test_temperature_0_is_the_likeliest() -> None:
    assert answer(3) == [1, 1, 1]


def test_the_temperature_says_how_often_each_token_comes() -> None:
    seen = draw(count=4000)
    weights = numpy.exp(LOGITS) / numpy.exp(LOGITS).sum()
    assert [seen[n] / 4000 for n in range(5)] == pytest.approx(list(weights), abs=0.03)
    assert set(draw(temperature=1e-300)) == {1}
    assert draw(temperature=2)[1] < draw()[1]


@pytest.mark.parametrize(
    ("options", "tokens"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {1, 2}),
        ({"top_k": 9}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.01}, {1}),
        ({"top_p": 0.8}, {1, 2}),  # the likeliest have 0.64 and 0.24
        ({"min_p": 1.0}, {1}),
        ({"min_p": 0.3}, {1, 2}),  # e^-1 is 0.37 of the likeliest, e^-2 is 0.14
        ({"top_k": 2, "top_p": 0.7}, {1}),  # of the two, the likelier has 0.73
    ],
)
def test_only_these_tokens_may_come(options: dict[str, Any], tokens: set[int]) -> None:
    assert set(draw(temperature=1.5 if "top_p" not in options else 1.0, **options)) == tokens


def test_of_tokens_as_likely_as_each_other_top_k_takes_no_more() -> None:
    assert len(draw([1, 1, 1, 1], top_k=2)) == 2


@pytest.mark.parametrize("spread", [0.0, 0.02, 1.0, 3.0, 9.0])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999, 1 - 1e-9])
def test_of_a_whole_vocabulary_top_p_keeps_what_sorting_all_of_it_keeps(spread: float, share: float) -> None:
    logits = numpy.random.default_rng(5).normal(0, spread, 32000).round(2).astype(numpy.float32)  # many are equal
    weights = numpy.exp((logits - logits.max()).astype(numpy.float64))
    order = numpy.argsort(-weights, kind="stable")
    before = numpy.cumsum(weights[order]) - weights[order]
    weights[order[before > share * weights.sum()]] = 0
    chances = numpy.cumsum(weights / weights.sum())
    for seed in range(20):
        place = numpy.random.default_rng(seed).random()
        assert list(draw(logits, 1, seed=seed, top_p=share)) == [numpy.searchsorted(chances, place, side="right")]


@pytest.mark.parametrize("count", [1, 20])
def test_the_likeliest_are_named_in_order(count: int) -> None:
    logits = numpy.random.default_rng(5).normal(0, 3, 32000).round(1).astype(numpy.float32)
    named = Sampler(SamplingParams(1, temperature=0, logprobs=count), prompt=[])(logits).top
    assert [token for token, _ in named] == list(numpy.argsort(-logits, kind="stable")[:count])


@pytest.mark.parametrize("number", [numpy.nan, numpy.inf, -numpy.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_what_is_no_number_is_refused(number: float, temperature: float) -> None:
    with pytest.raises(LogitsError):
        draw([1, number, 2], temperature=temperature)


def test_the_seed_decides() -> None:
    def tokens(seed: int) -> list[int]:
        return answer(50, temperature=1.0, seed=seed)

    assert tokens(7) == tokens(7)
    assert tokens(7) != tokens(8)
    assert tokens(-(2**63)) == tokens(-(2**63))


def test_the_repetition_penalty_counts_prompt_and_answer() -> None:
    assert answer(1, prompt=(1,), repetition_penalty=1.6) == [2]  # 3 / 1.6 < 2
    # Below zero it multiplies: 3 -> 0.03, 2 -> 0.02, 1 -> 0.01, -1 -> -100.
    assert answer(6, repetition_penalty=100) == [1, 2, 0, 1, 1, 1]


def test_the_presence_penalty_counts_a_token_once_and_the_frequency_penalty_each_time() -> None:
    assert answer(4, prompt=(1,), presence_penalty=1.5) == [1, 2, 1, 1]  # 3, then 1.5 to 2, then 1.5 to 0.5
    assert answer(5, prompt=(1,), frequency_penalty=0.8) == [1, 1, 2, 1, 2]


def test_an_answer_goes_on_until_it_has_so_many_tokens() -> None:
    sampler = Sampler(SamplingParams(5, temperature=0, min_tokens=2, stop_token_ids=(2, 99)), [], stop_ids={1})
    chosen = [sampler(LOGITS).id for _ in range(3)]
    assert chosen == [0, 0, 1]  # the likeliest are 1, 2 and then 0
    assert [sampler.ends(token) for token in range(3)] == [False, True, True]


def test_a_request_s_own_tokens_end_it_where_the_model_s_do_not() -> None:
    sampler = Sampler(SamplingParams(5, ignore_eos=True, stop_token_ids=(2,)), [], stop_ids={1})
    assert [sampler.ends(token) for token in range(3)] == [False, False, True]
