"""Batch invariance of the real libraries: rows that come and go get the tokens that they get alone.

The models are tiny and have random weights, so that every token hangs by little: what a batch gets wrong shows at once.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from bigdl.llm.transformers import AutoModelForCausalLM
from transformers import LlamaConfig, LlamaForCausalLM
from xpuserve.backends.bigdl import ROOM, BigDLBackend, LlamaModel
from xpuserve.engine.request import Request, Sampling
from xpuserve.engine.scheduler import Scheduler

SCHEDULES = 200
VOCABULARY = 256
MODELS = {
    "transformers": ("", False),
    "transformers, grouped queries": ("", True),
    "bigdl sym_int8": ("sym_int8", False),
    "bigdl sym_int8, grouped queries": ("sym_int8", True),
    "bigdl asym_int4": ("asym_int4", False),
}


@pytest.fixture(scope="module", params=MODELS.values(), ids=list(MODELS))
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    low_bit, grouped = request.param
    torch.manual_seed(1)
    torch.set_num_threads(1)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2 if grouped else 4,
        max_position_embeddings=1024,
        initializer_range=0.3,
    )
    model = LlamaForCausalLM(config)
    if low_bit:
        path = tmp_path_factory.mktemp("llama")
        model.save_pretrained(path)
        # optimize_model is what puts BigDL's own attention, with its cache that is written in place, into the model.
        model = AutoModelForCausalLM.from_pretrained(
            str(path), load_in_low_bit=low_bit, optimize_model=True, torch_dtype=torch.float32
        )
    return model.eval()


class Alone:
    """What each prompt gets by the model's own way to generate."""

    def __init__(self, model: Any) -> None:
        self._backend = BigDLBackend.__new__(BigDLBackend)
        self._backend._model, self._backend._device, self._backend._stop_ids = model, "cpu", {0}
        self._known: dict[tuple[int, ...], list[int]] = {}

    def __call__(self, prompt: tuple[int, ...], most: int) -> list[int]:
        if prompt not in self._known:
            tokens = self._backend.generate(prompt, Sampling(most, temperature=0))
            self._known[prompt] = [token.id for token in tokens if token]
        return self._known[prompt]


@pytest.fixture(scope="module")
def alone(llama: Any) -> Alone:
    return Alone(llama)


# Some longer than the room that BigDL leaves behind a cache, and begun like others.
DICE = random.Random(0)  # noqa: S311
BEGUN = [DICE.randrange(1, VOCABULARY) for _ in range(3 * ROOM)]
PROMPTS = [
    (*BEGUN[: DICE.choice([0, 0, 0, 20, 40])], *(DICE.randrange(1, VOCABULARY) for _ in range(DICE.randint(1, 40))))
    for _ in range(40)
] + [(*BEGUN, 5), (*BEGUN[: 2 * ROOM + 100], 6, 7)]
TOKENS = 12


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_answers_are_those_of_the_prompts_alone(llama: Any, alone: Alone, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    scheduler = Scheduler(
        LlamaModel(llama, {0}),
        rows=dice.randint(2, 6),
        cache_tokens=4096,
        prefill_tokens=dice.choice([7, 50, ROOM + 44]),
    )
    left = [
        Request("", list(prompt), Sampling(TOKENS, temperature=0), lambda event: None)
        for prompt in dice.sample(PROMPTS, 6)
    ]
    answers: dict[Request, list[int]] = {}
    running: list[Request] = []
    gone: set[Request] = set()
    while left or running:
        while left and dice.random() < 0.5 and scheduler.fits(left[0]):
            running.append(left.pop(0))
            answers[running[-1]] = []
            scheduler.add(running[-1])
        for output in scheduler.step():
            assert output.error is None
            answer = answers[output.request]
            answer += [token.id for token in output.tokens]
            if output.ended or len(answer) == TOKENS:
                running.remove(output.request)
                scheduler.drop(output.request)
        if running and dice.random() < 0.1:
            left_early = running.pop(dice.randrange(len(running)))
            scheduler.drop(left_early)
            gone.add(left_early)
    for request, answer in answers.items():
        whole = alone(tuple(request.prompt), TOKENS)
        assert answer == (whole[: len(answer)] if request in gone else whole)
