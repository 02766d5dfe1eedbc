"""Batch invariance of the real libraries: rows that come and go get the tokens that they get alone.

The models are tiny and have random weights, so that every token hangs by little: what a batch gets wrong shows at once.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from bigdl.llm.transformers import AutoModelForCausalLM
from transformers import LlamaConfig, LlamaForCausalLM
from xpuserve.backends.bigdl import BigDLBackend, BigDLLlama, _apply_rope_theta

from tests.engine.schedules import SCHEDULES, VOCABULARY, Alone, check

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


@pytest.fixture(scope="module")
def alone(llama: Any) -> Alone:
    backend = BigDLBackend.__new__(BigDLBackend)
    backend._model, backend._device, backend._stop_ids = llama, "cpu", {0}
    return Alone(backend.generate)


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_answers_are_those_of_the_prompts_alone(llama: Any, alone: Alone, seed: int) -> None:
    check(BigDLLlama(llama, {0}), alone, seed)


@pytest.mark.parametrize("scaling", [None, {"type": "linear", "factor": 2.0}, {"type": "dynamic", "factor": 2.0}])
def test_positions_turn_as_the_config_says(scaling: Any) -> None:
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=64,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=32,
        rope_theta=1e6,
        rope_scaling=scaling,
    )
    model = LlamaForCausalLM(config)
    _apply_rope_theta(model)
    turns = torch.arange(32)[:, None] / 1e6 ** (torch.arange(0, 16, 2) / 16)
    if scaling and scaling["type"] == "linear":
        turns /= 2
    cos = model.model.layers[0].self_attn.rotary_emb.cos_cached[0, 0]
    assert torch.allclose(cos, torch.cat([turns.cos(), turns.cos()], dim=-1), atol=1e-4)
