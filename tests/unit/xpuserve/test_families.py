"""Which models can answer in batches."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from xpuserve.backends.families import unbatchable_reason

LLAMA = "transformers.models.llama.modeling_llama"
OWN = "transformers_modules.model.modeling_llama"

BATCHED: dict[str, dict[str, Any]] = {
    "llama": {},
    "positions by the name of transformers 4.37": {"rope_scaling": {"type": "linear", "factor": 2.0}},
    "positions by the name of transformers 4.57": {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
    "positions by the name of transformers 5": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}},
    "mistral without a window": {"model_type": "mistral", "sliding_window": None},
    "a window as long as a request": {"model_type": "mistral", "sliding_window": 4096},
    "a window that is not used": {"model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": False},
    "qwen3": {"model_type": "qwen3", "head_dim": 128},
}
ALONE: dict[str, tuple[dict[str, Any], str]] = {
    "another family": ({"model_type": "gemma2"}, "gemma2 is not of the Llama family"),
    "a window": ({"model_type": "mistral", "sliding_window": 4095}, "reaches back 4095 tokens"),
    "a window in use": (
        {"model_type": "qwen2", "sliding_window": 1024, "use_sliding_window": True},
        "reaches back 1024 tokens",
    ),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "type dynamic"),
    "longrope": ({"rope_parameters": {"rope_type": "longrope"}}, "type longrope"),
    "what nobody knows yet": ({"rope_parameters": {"rope_type": "new"}}, "type new"),
}


def config(**options: Any) -> SimpleNamespace:
    return SimpleNamespace(**{"model_type": "llama", **options})


@pytest.mark.parametrize("options", BATCHED.values(), ids=BATCHED)
def test_what_looks_at_each_token_s_own_position_is_batched(options: dict[str, Any]) -> None:
    assert unbatchable_reason(LLAMA, config(**options), 4096) == ""


@pytest.mark.parametrize(("options", "reason"), ALONE.values(), ids=ALONE)
def test_what_does_not_is_served_one_at_a_time(options: dict[str, Any], reason: str) -> None:
    assert reason in unbatchable_reason(LLAMA, config(**options), 4096)


def test_code_that_comes_with_a_model_is_served_one_at_a_time() -> None:
    assert unbatchable_reason(OWN, config(), 4096) == "the model's code is its own"
