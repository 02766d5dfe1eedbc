"""Whether a model answers the same in a batch as alone; there are drivers and kernels with which it does not."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy

from xpuserve.backends.base import EngineError, Model, Tokenizer
from xpuserve.engine.batch import Batch, Prefill
from xpuserve.engine.prompts import encode_text
from xpuserve.engine.request import Sampling
from xpuserve.engine.runner import Tokens

# Of different length, so that rows are padded.
TEXTS = (
    "The capital of France is",
    "One, two, three, four,",
    "Water freezes at zero degrees Celsius and boils at one hundred, so at twenty degrees it is",
    "Monday, Tuesday, Wednesday, Thursday,",
)
TOKENS = 12
CHUNK = 5
# Likeliest tokens of a step that are looked at: a model that finds all of them as likely has read nothing.
LIKELIEST = 20
# Sums in another order give slightly other logits, and of two tokens that are almost as likely, the other. What may lie
# between them, in standard deviations of all logits; between the likeliest token and any other there are several.
TOLERANCE = 0.25

log = logging.getLogger(__name__)


def agrees(generate: Callable[[Sequence[int], Sampling], Tokens], model: Model, tokenizer: Tokenizer) -> bool:
    """Whether known prompts get the same tokens from `generate`, one at a time, and from `model` in a batch.

    Raises what `generate` raises, and EngineError where its answers are no model's: then nothing can be served.
    """
    prompts = [encode_text(tokenizer, text) for text in TEXTS]
    alone = [_alone(generate, prompt) for prompt in prompts]
    try:
        wrong = _disagreement(model, prompts, alone)
    except Exception:
        log.exception("the batching test failed; requests are served one at a time")
        return False
    if wrong:
        log.error("in a batch the model answers otherwise than alone, so requests are served one at a time: %s", wrong)
    return not wrong


def _alone(generate: Callable[[Sequence[int], Sampling], Tokens], prompt: Sequence[int]) -> list[int]:
    """The likeliest answer to a prompt by itself."""
    tokens = []
    for token in generate(prompt, Sampling(TOKENS, temperature=0, ignore_eos=True, logprobs=LIKELIEST)):
        if token is None:
            continue
        if len({chance for _, chance in token.top}) == 1:
            raise EngineError("the model finds all tokens equally likely, so its answers would be garbage")
        tokens.append(token.id)
    return tokens


def _disagreement(model: Model, prompts: Sequence[Sequence[int]], alone: Sequence[Sequence[int]]) -> str:
    """Where the batch first finds another token likelier than the one chosen alone; empty where it never does.

    The batch reads the tokens that were chosen alone, whatever it finds. A row comes every second step, and goes when
    its answer is complete, while others go on.
    """
    batch, waiting, step = Batch(model), list(range(len(prompts))), 0
    rows: list[int] = []  # the prompt of each row
    compared = [0] * len(prompts)  # tokens of each answer

    def differs(n: int, logits: Any) -> bool:
        expected = alone[n][compared[n]]
        compared[n] += 1
        with numpy.errstate(invalid="ignore"):
            spread = logits.std()  # NaN where a logit is not finite, and 0 where all are the same: neither is an answer
            return not (spread > 0 and logits.max() - logits[expected] <= TOLERANCE * spread)

    while waiting or rows:
        keep = [at for at, n in enumerate(rows) if compared[n] < TOKENS]
        new = [waiting.pop(0)] if waiting and step % 2 == 0 else []
        prefills = [Prefill(model, prompts[n]) for n in new]
        first = [_read(prefill) for prefill in prefills]
        batch.change(keep, [prefill.part() for prefill in prefills])
        rows = [rows[at] for at in keep] + new
        if wrong := [n for n, logits in zip(new, first) if differs(n, logits)]:
            return f"{TEXTS[wrong[0]]!r}, when its prompt is read in parts"
        if rows:
            logits = batch.decode([alone[n][compared[n] - 1] for n in rows])
            if wrong := [n for n, after in zip(rows, logits) if differs(n, after)]:
                return f"{TEXTS[wrong[0]]!r}, token {compared[wrong[0]]}, in a batch of {len(rows)}"
        step += 1
    return ""


def _read(prefill: Prefill) -> Any:
    while prefill.left:
        logits = prefill.read(CHUNK)
    return logits
