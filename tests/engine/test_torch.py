"""Engine torch on the real libraries: a directory is loaded and answers, and rows that come and go get the tokens that
they get alone.

The models are tiny and have random weights, so that every token hangs by little: what a batch gets wrong shows at once.
make test-engine runs them in the environment of the benchmark's peer. They run wherever PyTorch, transformers, pydantic
and pytest are, beside ipex-llm too: python -m pytest tests/engine/test_torch.py. The variable XPU_FLEET_TEST_DEVICE
names another device of PyTorch than the CPU.
"""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast
from xpuserve import backends
from xpuserve.backends.torch import TorchBackend, TorchLlama
from xpuserve.engine import selftest
from xpuserve.engine.backend import EngineError, Part
from xpuserve.engine.prompts import PromptError, encode_chat
from xpuserve.engine.request import Message, SamplingParams
from xpuserve.engine.runner import OneAtATime
from xpuserve.engine.runner import run_single as answer
from xpuserve.engine.scheduler import Scheduler
from xpuserve.settings import IPEX_LLM_FORMATS, Settings

from tests.engine.schedules import (
    FORM,
    GRAMMARS,
    PROMPTS,
    SCHEDULES,
    TOKENS,
    TOLD,
    VOCABULARY,
    Alone,
    check,
    check_told,
)

IPEX_LLM = importlib.util.find_spec("ipex_llm") is not None
DEVICE = os.environ.get("XPU_FLEET_TEST_DEVICE", "cpu")
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 256, "rope_theta": 10000.0}
FAMILY: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "llama, grouped queries": {"model_type": "llama", "num_key_value_heads": 2},
    "llama, one key-value head, tied": {"model_type": "llama", "num_key_value_heads": 1, "tie_word_embeddings": True},
    "llama, yarn": {"model_type": "llama", "rope_scaling": YARN},
    "mistral": {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": None},
    "mistral, window as long as the context": {"model_type": "mistral", "sliding_window": 1024},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
    "qwen3, heads of another width": {"model_type": "qwen3", "num_key_value_heads": 2, "head_dim": 32},
}
OTHERS: dict[str, dict[str, Any]] = {
    "mistral, short window": {"model_type": "mistral", "sliding_window": 16},
    "llama, dynamic": {"model_type": "llama", "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}},
    "gemma2": {"model_type": "gemma2", "sliding_window": 16, "head_dim": 16},
    "gpt2": {"model_type": "gpt2", "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 1024},
}
PRESENT = [name for name, shape in FAMILY.items() if shape["model_type"] in CONFIG_MAPPING]


def made(shape: dict[str, Any]) -> Any:
    """A tiny model of that shape."""
    torch.manual_seed(1)
    torch.set_num_threads(1)
    common = {
        "vocab_size": VOCABULARY,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 1024,
        "initializer_range": 0.3,
        "bos_token_id": 1,
        "eos_token_id": 0,
        "pad_token_id": 2,
    }
    options = {**common, **shape}
    if shape["model_type"] == "gpt2":
        options = {key: options[key] for key in ("vocab_size", "initializer_range", "eos_token_id", *shape)}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**options)).float().eval()


def settings(path: Path, **model: Any) -> Settings:
    """What serves the directory on the CPU, in 32 bits."""
    options = {"name": "m", "path": str(path), "format": "safetensors", "low_bit": "fp32", "context_length": 1024}
    return Settings.model_validate(
        {"engine": "torch", "device": "cpu", "cache_dir": str(path / "cache"), "model": {**options, **model}}
    )


def backend_of(model: Any) -> TorchBackend:
    """A backend that has loaded the model."""
    backend = TorchBackend(settings(Path("/nowhere")))
    backend._model, backend._device, backend._stop_ids = model, DEVICE, {0}
    backend._grammars = GRAMMARS
    return backend


class Served:
    """A model in rows, and by its own way to generate."""

    def __init__(self, model: Any) -> None:
        self.backend = backend_of(model.to(DEVICE))
        rows = self.backend._rows()
        assert isinstance(rows, TorchLlama)
        self.rows = rows
        self.alone = Alone(self.backend.generate)


@pytest.fixture(scope="module", params=PRESENT)
def served(request: pytest.FixtureRequest) -> Served:
    return Served(made(FAMILY[request.param]))


@pytest.mark.parametrize("seed", range(SCHEDULES))
def test_answers_are_those_of_the_prompts_alone(served: Served, seed: int) -> None:
    check(served.rows, served.alone, seed)


def test_how_likely_a_prompt_s_tokens_are_is_what_the_model_says(served: Served) -> None:
    with torch.inference_mode():
        logits = served.backend._model(input_ids=torch.tensor([TOLD], device=DEVICE)).logits
    check_told(logits, served.backend.generate, served.rows)


@pytest.mark.parametrize("name", [*PRESENT, *OTHERS])
def test_alone_a_model_answers_as_transformers_has_it_answer(name: str) -> None:
    model = made({**FAMILY, **OTHERS}[name]).to(DEVICE)
    mine = Alone(backend_of(model).generate)
    for prompt in [prompt for prompt in PROMPTS if prompt not in FORM][:8]:
        ids = torch.tensor([prompt], device=DEVICE)
        theirs = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=TOKENS, do_sample=False, eos_token_id=0
        )[0, len(prompt) :].tolist()
        assert mine(prompt, TOKENS) == [token for token in theirs if token != 0]


@pytest.mark.parametrize("name", OTHERS)
def test_what_a_batch_would_get_wrong_is_served_one_at_a_time(name: str) -> None:
    assert backend_of(made(OTHERS[name]))._rows() is None


def test_a_cache_that_was_given_holds_what_it_held(served: Served) -> None:
    def read(tokens: list[int], start: int, cache: Any) -> tuple[Any, Any]:
        positions = numpy.arange(start, start + len(tokens))[None]
        mask = numpy.ones((1, start + len(tokens)), bool)
        return served.rows.forward(numpy.array([tokens]), positions, mask, cache)

    _, begun = read([5, 6, 7], 0, None)
    begun = served.rows.gather([Part(begun, 0, 0, 3)], grows=True)
    before = [[tensor.clone() for tensor in pair] for pair in begun]
    first, longer = read([8], 3, begun)
    kept = served.rows.gather([Part(longer, 0, 0, 4)], grows=False)
    read([9, 10], 3, begun)
    again, _ = read([8], 3, begun)
    assert numpy.array_equal(first, again)
    assert all(torch.equal(a, b) for pair, was in zip(begun, before) for a, b in zip(pair, was))
    after, _ = read([11], 4, kept)
    whole, _ = read([5, 6, 7, 8, 11], 0, None)
    assert numpy.allclose(after, whole, atol=1e-3)


TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "{{ bos_token }}{{ message.content }} {% endfor %}{% if add_generation_prompt %}w3{% endif %}"
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with its tokenizer, of words w0 to w255, as people download it."""
    path = tmp_path_factory.mktemp("model")
    made(FAMILY["llama, grouped queries"]).save_pretrained(path, safe_serialization=True)
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(VOCABULARY)}, unk_token="w2"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="w1", eos_token="w0", unk_token="w2")
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def known_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model's words are not those of the start's own test: it would see nothing but padding there."""
    monkeypatch.setattr(selftest, "TEXTS", ("w9 w8 w7", "w40", "w5 w6 w7 w8 w9 w10 w11 w12", "w100 w101"))


def loaded(path: Path, **model: Any) -> Any:
    backend = backends.create(settings(path, **model), 0)
    backend.load()
    return backend


def test_a_directory_is_loaded_and_answers_in_a_batch_as_alone(directory: Path) -> None:
    backend = loaded(directory)
    runner = backend.runner()
    assert isinstance(runner, Scheduler)
    assert runner.batching == "on"
    prompt = encode_chat(backend.tokenizer, "tokenizer", [Message("user", "w7 w8")])
    assert prompt == [1, 7, 8, 3]
    sampling = SamplingParams(TOKENS, temperature=0)
    assert answer(runner, prompt, sampling) == [token.id for token in backend.generate(prompt, sampling)]
    assert backend.tokenizer.decode([7, 0, 8]).split() == ["w7", "w8"]
    second = backend.second_tokenizer()
    assert second is not backend.tokenizer
    assert second.encode("w7 w8", special=False) == backend.tokenizer.encode("w7 w8", special=False)
    assert backend._stop_ids == {0}
    assert runner._batch_tokens > 0


def test_the_template_s_refusal_is_the_client_s(directory: Path) -> None:
    with pytest.raises(PromptError, match="no system"):
        loaded(directory).tokenizer.render([Message("system", "w5"), Message("user", "w5")])


@pytest.mark.parametrize(
    ("low_bit", "number"),
    [("", torch.bfloat16), ("bf16", torch.bfloat16), ("fp16", torch.float16), ("fp32", torch.float32)],
)
def test_numbers_are_as_wide_as_the_settings_say(directory: Path, low_bit: str, number: Any) -> None:
    backend = loaded(directory, low_bit=low_bit)
    assert backend._model.dtype == number
    assert backend.runner().batching == "on"


def test_pickle_files_are_not_opened(directory: Path, tmp_path: Path) -> None:
    for file in directory.iterdir():
        if file.is_file() and file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"no pickle")
    with pytest.raises(OSError, match="safetensors"):
        loaded(tmp_path)


def test_code_that_comes_with_a_model_does_not_run_unless_the_settings_say_so(directory: Path, tmp_path: Path) -> None:
    for file in directory.iterdir():
        if file.is_file():
            (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.Own"}
    (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own", "auto_map": auto_map}))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match="trust_remote_code"):
        loaded(tmp_path)
    assert not (tmp_path / "ran").exists()


class Unmasked(TorchLlama):
    """Sees the padding."""

    def forward(self, ids: Any, positions: Any, mask: Any, cache: Any) -> Any:
        return super().forward(ids, positions, numpy.ones_like(mask), cache)


def test_a_model_that_answers_otherwise_in_a_batch_is_served_one_at_a_time(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends.torch, "TorchLlama", Unmasked)
    runner = loaded(directory).runner()
    assert isinstance(runner, OneAtATime)
    assert runner.batching == "degraded"


if IPEX_LLM:

    @pytest.mark.parametrize("low_bit", IPEX_LLM_FORMATS["cpu"])
    def test_ipex_llm_s_formats_pass_the_test_at_the_start(directory: Path, low_bit: str) -> None:
        backend = loaded(directory, low_bit=low_bit)
        assert {type(layer).__name__ for layer in backend._model.model.layers[0].mlp.children()} >= {"LowBitLinear"}
        assert backend.runner().batching == "on"

else:

    def test_low_bit_without_ipex_llm_says_what_there_is(directory: Path) -> None:
        with pytest.raises(EngineError, match=r"needs ipex-llm.*bf16, fp16, fp32"):
            loaded(directory, low_bit="sym_int8")
