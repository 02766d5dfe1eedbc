"""Compare a model's own generate method, for each prompt alone, with a batch in which rows come and go."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

from xpuserve.backends.huggingface import ROOM
from xpuserve.engine.backend import Model
from xpuserve.engine.grammar import Grammars
from xpuserve.engine.request import PromptTokens, Request, SamplingParams, Token
from xpuserve.engine.runner import Tokens
from xpuserve.engine.scheduler import Scheduler
from xpuserve.structured import StructuredOutput

SCHEDULES = 200
VOCABULARY = 256
TOKENS = 12
# Some longer than the room behind a cache, and begun like others.
DICE = random.Random(0)  # noqa: S311
BEGUN = [DICE.randrange(1, VOCABULARY) for _ in range(3 * ROOM)]
PROMPTS = [
    (*BEGUN[: DICE.choice([0, 0, 0, 20, 40])], *(DICE.randrange(1, VOCABULARY) for _ in range(DICE.randint(1, 40))))
    for _ in range(40)
] + [(*BEGUN, 5), (*BEGUN[: 2 * ROOM + 100], 6, 7)]


# Required content of answers to some prompts: without it, they would not contain such tokens.
FORMS = [StructuredOutput("regex", "[A-Z]{3,9}"), StructuredOutput("regex", "([a-f]+ )*[0-9]")]
FORM = {prompt: FORMS[n % 4] for n, prompt in enumerate(PROMPTS) if n % 4 < len(FORMS)}
GRAMMARS = Grammars([b"", *(bytes([n]) for n in range(1, VOCABULARY))], [0])


def sampling(prompt: tuple[int, ...], most: int) -> SamplingParams:
    """The sampling of a prompt's answer."""
    return SamplingParams(most, temperature=0, structured=FORM.get(prompt))


class Alone:
    """The answer to each prompt alone."""

    def __init__(self, generate: Callable[[Sequence[int], SamplingParams], Tokens]) -> None:
        self._generate = generate
        self._known: dict[tuple[int, ...], list[int]] = {}

    def __call__(self, prompt: tuple[int, ...], most: int) -> list[int]:
        if prompt not in self._known:
            tokens = self._generate(prompt, sampling(prompt, most))
            self._known[prompt] = [token.id for token in tokens if isinstance(token, Token)]
        return self._known[prompt]


def check(model: Model, alone: Alone, seed: int) -> None:
    """Run one random schedule, and compare every answer, complete or left early, with the one alone."""
    dice = random.Random(seed)  # noqa: S311
    scheduler = Scheduler(
        model,
        batch_requests=dice.randint(2, 6),
        batch_tokens=8192,
        prefill_tokens=dice.choice([7, 50, ROOM + 44]),
        grammars=GRAMMARS,
    )
    left = [
        Request("", list(prompt), sampling(prompt, TOKENS), lambda event: None) for prompt in dice.sample(PROMPTS, 6)
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


#: More than a step reports.
TOLD = PROMPTS[-2]
TELLING = SamplingParams(1, temperature=0, logprobs=2, prompt_logprobs=True)


def told_alone(generate: Callable[[Sequence[int], SamplingParams], Tokens]) -> list[Token]:
    """How likely a prompt's tokens are, by a model's own way to generate."""
    steps = generate(TOLD, TELLING)
    return [token for step in steps if isinstance(step, PromptTokens) for token in step.tokens]


def told_together(model: Model) -> list[Token]:
    """The same beside another request."""
    scheduler = Scheduler(model, batch_requests=2, batch_tokens=8192, prefill_tokens=ROOM + 44)
    asked = Request("", list(TOLD), TELLING, lambda event: None)
    other = Request("", list(PROMPTS[0]), SamplingParams(50, temperature=0, ignore_eos=True), lambda event: None)
    scheduler.add(other)
    scheduler.add(asked)
    found: list[Token] = []
    while True:
        for output in scheduler.step():
            assert output.error is None
            found += output.prompt
            if output.request is asked and output.tokens:
                return found


def check_told(logits: Any, generate: Callable[[Sequence[int], SamplingParams], Tokens], model: Model) -> None:
    """Compare reported log probabilities, alone and beside another request, with the library's logits of TOLD."""
    chances = logits[0, :-1].float().log_softmax(-1).cpu()
    for told in (told_alone(generate), told_together(model)):
        assert [token.id for token in told] == list(TOLD)
        assert told[0].logprob is None
        for token, chance in zip(told[1:], chances):
            assert token.logprob is not None
            # BigDL's numbers are others for a part of a prompt than for a whole one: by 0.03 was seen.
            assert abs(token.logprob - float(chance[token.id])) < 0.1
            assert token.logprob <= token.top[0][1]
