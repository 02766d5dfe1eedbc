"""Batch invariance of the real libraries: rows that come and go get the tokens that they get alone.

The models are tiny and have random weights, so that every token hangs by little: what a batch gets wrong shows at once.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from xpuserve.backends import instructions
from xpuserve.backends.bigdl import BigDLBackend, BigDLLlama, _apply_rope_theta

from tests.engine.schedules import (
    GRAMMARS,
    PROMPTS,
    SCHEDULES,
    TOLD,
    VOCABULARY,
    Alone,
    check,
    check_told,
)

instructions.use_widest()  # before BigDL is imported, as the service does: it is this library that is served
from bigdl.llm.transformers import AutoModelForCausalLM  # noqa: E402

MODELS = {
    "transformers": ("", False),
    "transformers, grouped queries": ("", True),
    "bigdl sym_int8": ("sym_int8", False),
    "bigdl sym_int8, grouped queries": ("sym_int8", True),
    "bigdl asym_int4": ("asym_int4", False),
}


def made(grouped: bool) -> Any:
    """A tiny model; `grouped` says that several queries share a key-value head."""
    torch.manual_seed(1)
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
    return LlamaForCausalLM(config)


@pytest.fixture(scope="module", params=MODELS.values(), ids=list(MODELS))
def llama(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    low_bit, grouped = request.param
    torch.set_num_threads(1)
    model = made(grouped)
    if low_bit:
        path = tmp_path_factory.mktemp("llama")
        model.save_pretrained(path)
        # optimize_model is what puts BigDL's own attention, with its cache that is written in place, into the model.
        model = AutoModelForCausalLM.from_pretrained(
            str(path), load_in_low_bit=low_bit, optimize_model=True, torch_dtype=torch.float32
        )
    return model.eval()


def backend_of(llama: Any) -> BigDLBackend:
    """A backend that has loaded the model."""
    backend = BigDLBackend.__new__(BigDLBackend)
    backend._model, backend._device, backend._stop_ids = llama, "cpu", {0}
    backend._grammars = GRAMMARS
    return backend


@pytest.fixture(scope="module")
def alone(llama: Any) -> Alone:
    return Alone(backend_of(llama).generate)


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_answers_are_those_of_the_prompts_alone(llama: Any, alone: Alone, seed: int) -> None:
    check(BigDLLlama(llama, {0}), alone, seed)


def test_how_likely_a_prompt_s_tokens_are_is_what_the_model_says(llama: Any) -> None:
    with torch.inference_mode():
        logits = llama(input_ids=torch.tensor([TOLD])).logits
    check_told(logits, backend_of(llama).generate, BigDLLlama(llama, {0}))


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


# Run by itself: a library stays once it is loaded. It answers prompts, or says of answers by how much, in standard
# deviations of the logits, the likeliest token is before each of theirs.
ASKED = """
import json, sys
import torch
from bigdl.llm.ggml.model.llama import llama_cpp
from bigdl.llm.transformers import AutoModelForCausalLM
from xpuserve.backends.bigdl import BigDLBackend
from xpuserve.engine.request import SamplingParams

torch.set_num_threads(1)
backend = BigDLBackend.__new__(BigDLBackend)
backend._model = AutoModelForCausalLM.from_pretrained(
    sys.argv[1], load_in_low_bit=sys.argv[2], optimize_model=False, torch_dtype=torch.float32
).eval()
backend._device, backend._stop_ids = "cpu", set()
prompts, answers = json.load(sys.stdin)
if not answers:
    sampling = SamplingParams(24, temperature=0)
    told = [[token.id for token in backend.generate(prompt, sampling)] for prompt in prompts]
else:
    told = []
    for prompt, answer in zip(prompts, answers):
        with torch.inference_mode():
            logits = backend._model(input_ids=torch.tensor([prompt + answer[:-1]])).logits[0, len(prompt) - 1 :]
        chosen = logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
        told.append(((logits.max(1).values - chosen) / logits.std(1)).tolist())
print(json.dumps([llama_cpp._lib._name, told]))
"""


def asked(library: Path, model: Path, low_bit: str, answers: Any = None) -> Any:
    """What a process with this library of BigDL's tells."""
    done = subprocess.run(
        [sys.executable, "-c", ASKED, str(model), low_bit],
        env={**os.environ, instructions.VARIABLE: str(library), "PYTHONPATH": os.pathsep.join(sys.path)},
        input=json.dumps([[list(prompt) for prompt in PROMPTS], answers]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    loaded, told = json.loads(done.stdout.splitlines()[-1])
    assert Path(loaded).name == library.name
    return told


def libraries() -> list[Path]:
    """BigDL's libraries that this CPU can run, the narrowest first."""
    spec = importlib.util.find_spec("bigdl.llm")
    assert spec and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "libs"
    flags = set(re.findall(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)[0].split())
    wide = [name for name, needed in instructions.LIBRARIES.items() if needed <= flags]
    return [folder / f"libllama_{name}.so" for name in ("avx", *reversed(wide))]


@pytest.mark.parametrize("low_bit", ["sym_int4", "asym_int4", "sym_int8"])
def test_a_wider_library_gives_the_tokens_of_the_narrowest(low_bit: str, tmp_path: Path) -> None:
    """Sums in another order: of a thousand tokens, a few that are as good as equally likely may change places."""
    made(False).save_pretrained(tmp_path)
    narrowest, *wider = libraries()
    answers = asked(narrowest, tmp_path, low_bit)
    for library in wider:
        gaps = [gap for answer in asked(library, tmp_path, low_bit, answers) for gap in answer]
        others = [gap for gap in gaps if gap > 0]
        assert len(gaps) > 1000
        assert len(others) < len(gaps) / 100
        assert all(gap < 0.1 for gap in others)
