"""Which files of a repository are the model, and which models cannot be served."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.model import store
from ansible_collections.xpu.fleet.plugins.module_utils.model.formats import context_limit
from ansible_collections.xpu.fleet.plugins.module_utils.model.judge import Use, judge
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import (
    StoreError,
    WeightsRequest,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.store import (
    in_place,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.weights import WeightsChoiceError, choose, entry_point
from ansible_collections.xpu.fleet.tests.unit.plugins.support.weight_files import CONTEXTS, index, safetensors

INDEX = "model.safetensors.index.json"
BESIDE = ["config.json", "tokenizer.json"]


def parts(stem: str, total: int, suffix: str = "gguf", width: int = 5) -> list[str]:
    return [f"{stem}-{number:0{width}}-of-{total:0{width}}.{suffix}" for number in range(1, total + 1)]


def chosen(names: list[str], **more: Any) -> list[str]:
    return choose(names, more.pop("formats", ["safetensors"]), where="it", **more)[1]


@pytest.mark.parametrize(("stem", "total", "width"), [("a-q8_0", 2, 5), ("Big-Model.Q4_K_M", 12, 5), ("x", 3, 2)])
def test_a_split_gguf_is_taken_whole_and_opened_at_its_first_part(stem: str, total: int, width: int) -> None:
    files = parts(stem, total, width=width)
    for named in ([], [files[0]], [files[-1]], [files[1], files[0]]):
        taken = chosen([*files, "README.md", "mmproj-f16.gguf"], formats=["gguf"], wanted_files=named)
        assert taken == files
        assert entry_point("gguf", "/m", list(reversed(taken))) == f"/m/{files[0]}"


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_a_part_that_lacks_is_named(gone: int) -> None:
    for suffix, form in (("gguf", "gguf"), ("safetensors", "safetensors")):
        files = parts("model", 3, suffix)
        missing = files.pop(gone)
        with pytest.raises(WeightsChoiceError, match=missing):
            chosen([*files, *BESIDE], formats=[form])


def test_two_models_in_gguf_are_to_be_named_by_one_file() -> None:
    names = [*parts("a-q4", 2), "a-q8.gguf"]
    with pytest.raises(WeightsChoiceError, match=r"2 GGUF files \(a-q4-00001-of-00002.gguf, a-q8.gguf\).*'file'"):
        chosen(names, formats=["gguf"])
    assert chosen(names, formats=["gguf"], wanted_files=["a-q8.gguf"]) == ["a-q8.gguf"]


CUT = [
    *("m.gguf-split-a", "m.gguf.part1", "m.gguf.001", "m.Q6_K.gguf.part1of2"),
    *("m.gguf-part-a", "m.gguf.aa", "m.ggufab", "m.gguf.00"),
]


@pytest.mark.parametrize("piece", CUT)
def test_a_gguf_that_was_cut_is_told_as_such(piece: str) -> None:
    with pytest.raises(WeightsChoiceError, match="join them with cat"):
        chosen([piece, "README.md"], formats=["openvino", "gguf"])


@pytest.mark.parametrize("named", ["m.Q8.gguf.part1of2", "README.md", "model.safetensors"])
def test_a_named_file_that_the_engine_does_not_read_is_named_beside_others_that_it_does(named: str) -> None:
    names = ["m.Q4.gguf", "m.Q8.gguf.part1of2", "README.md", "model.safetensors"]
    with pytest.raises(WeightsChoiceError, match=re.escape(f"{named} of it is no openvino or gguf")):
        chosen(names, formats=["openvino", "gguf"], wanted_files=[named])


@pytest.mark.parametrize("wanted", [[], ["Q4/m-00001-of-00002.gguf"]])
def test_weights_in_a_folder_of_a_repository_are_told_as_such(wanted: list[str]) -> None:
    with pytest.raises(WeightsChoiceError, match=r"in folders \(Q4/m-00001-of-00002.gguf"):
        chosen(["README.md", *parts("Q4/m", 2)], formats=["openvino", "gguf"], wanted_files=wanted)
    model = ["openvino_model.bin", "openvino_model.xml"]
    assert chosen([*model, *parts("Q4/m", 2)], formats=["openvino", "gguf"]) == model


SHARDS = parts("model", 2, "safetensors")


@pytest.mark.parametrize(
    ("weights", "others"),
    [
        (["model.safetensors"], ["consolidated.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"]),
        ([*SHARDS, INDEX], ["adapter_model.safetensors", "adapter_config.json", "consolidated.00.pth"]),
        (["model.safetensors"], ["model.fp16.safetensors", "model_quantized.onnx", "rust_model.ot"]),
        ([*SHARDS, INDEX], ["model.safetensors", "pytorch_model.bin.index.json"]),
        (["model.safetensors"], ["unsharded-q4.gguf", "onnx/model.onnx", "original/consolidated.00.pth"]),
    ],
)
def test_second_copies_and_adapters_stay(weights: list[str], others: list[str]) -> None:
    assert chosen([*weights, *others, *BESIDE]) == sorted([*weights, *BESIDE])


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["adapter_config.json", "adapter_model.safetensors"], "an adapter"),
        (["consolidated.safetensors", "params.json", "tekken.json"], "Mistral's own form"),
        (["config.json", "pytorch_model.bin"], "pickle weights only"),
        (["config.json", "model.onnx"], "holds no weights"),
    ],
)
def test_what_is_no_model_is_named(names: list[str], words: str) -> None:
    with pytest.raises(WeightsChoiceError, match=words):
        chosen(names)


def test_an_openvino_model_without_its_tensors_is_named() -> None:
    with pytest.raises(WeightsChoiceError, match=r"openvino_model.xml without the .bin"):
        chosen(["openvino_model.xml", "openvino_tokenizer.xml", "openvino_tokenizer.bin"][:1], formats=["openvino"])


@pytest.mark.parametrize(
    "tokenizer",
    [
        *("tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "tekken.json", "cl100k_base.tiktoken"),
        *("tokenizer.model.v3", "spm.model", "source.spm", "bpe.codes", "vocab.bpe", "dict.txt", "vocab.txt"),
        *("20B_tokenizer.json", "rwkv_vocab_v20230424.txt", "tokenizer.vocab", "vocab"),
    ],
)
def test_tokenizers_of_any_name_are_taken(tokenizer: str) -> None:
    names = ["model.safetensors", "config.json", tokenizer]
    assert tokenizer in chosen(names)
    judge(names, "safetensors", lambda name: b"{}", where="it")


@pytest.mark.parametrize(
    "other", ["README.md", ".gitattributes", "run.sh", "modeling_x.py", "a.png", "training_args.bin"]
)
def test_what_is_no_part_of_a_model_stays(other: str) -> None:
    assert other not in chosen(["model.safetensors", *BESIDE, other])


def judged(tmp: dict[str, bytes], **use: Any) -> None:
    judge(sorted(tmp), "safetensors", tmp.__getitem__, where="it", use=Use(**use))


WHOLE = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": b""}


@pytest.mark.parametrize(
    ("shards", "named"),
    [
        (["a.safetensors"], ["a.safetensors", "b.safetensors"]),
        (["model-1.safetensors", "model-2.safetensors"], ["model-1.safetensors", "model-3.safetensors"]),
        (["model.safetensors"], ["model.safetensors", "model-00002-of-00002.safetensors"]),
        (["model.safetensors"], ["../model.safetensors"]),
    ],
)
def test_a_file_that_the_index_names_and_nobody_has_is_named(shards: list[str], named: list[str]) -> None:
    files = {**dict.fromkeys(shards, b""), "config.json": b"{}", "tokenizer.json": b"{}", INDEX: index(*named)}
    with pytest.raises(WeightsChoiceError, match=sorted(set(named) - set(shards))[0]):
        judged(files)


@pytest.mark.parametrize("left", [[], SHARDS[:1], SHARDS[1:]])
def test_an_index_of_another_copy_does_not_matter_beside_a_whole_file(left: list[str]) -> None:
    files = {**WHOLE, INDEX: index(*SHARDS), **dict.fromkeys(left, b"")}
    form, chosen = choose(list(files), ["safetensors"], where="here")
    assert [name for name in chosen if name.endswith(".safetensors")] == ["model.safetensors"]
    judged({name: files[name] for name in chosen})
    # Where all shards are there, these are taken, as before.
    both = {**files, **dict.fromkeys(SHARDS, b"")}
    form, chosen = choose(list(both), ["safetensors"], where="here")
    assert [name for name in chosen if name.endswith(".safetensors")] == SHARDS
    assert form == "safetensors"


def test_an_index_that_names_files_in_another_folder_is_told_as_such() -> None:
    with pytest.raises(WeightsChoiceError, match=r"names files in subfolders \(fp16/a.safetensors\)"):
        judged({**WHOLE, INDEX: index("model.safetensors", "fp16/a.safetensors")})


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"{", b'{"weight_map": {}}', b'{"weight_map": []}', b'{"weight_map": {"a": {}}}', b"[" * 100_000],
)
def test_an_index_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(WeightsChoiceError, match=INDEX):
        judged({**WHOLE, INDEX: content})


@pytest.mark.parametrize(
    ("config", "others", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, [], "gptq"),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, [], "awq"),
        ({"quantization_config": {"load_in_4bit": True}}, [], "bitsandbytes, 4bit"),
        ({"text_config": {"quantization_config": {"quant_method": "fp8"}}}, [], "fp8"),
        ({"compression_config": {"quant_method": "compressed-tensors"}}, [], "compressed-tensors"),
        ({}, ["quantize_config.json"], "GPTQ"),
        ({}, ["quant_config.json"], "AWQ"),
        ({}, ["hf_quant_config.json"], "ModelOpt"),
    ],
)
def test_weights_that_were_quantised_elsewhere_are_told_as_such(
    config: dict[str, Any], others: list[str], method: str
) -> None:
    files = {**WHOLE, "config.json": json.dumps(config).encode(), **dict.fromkeys(others, b"{}")}
    with pytest.raises(WeightsChoiceError, match=f"already quantised \\({method}\\)"):
        judged(files)


def test_weights_that_bigdl_converted_and_such_without_a_tokenizer_are_refused() -> None:
    with pytest.raises(WeightsChoiceError, match="BigDL already converted"):
        judged({**WHOLE, "config.json": b'{"bigdl_transformers_low_bit": "sym_int4"}'})
    with pytest.raises(WeightsChoiceError, match="no tokenizer"):
        judged({"config.json": b"{}", "model.safetensors": b"", "LICENSE": b""})
    settings = ["tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "preprocessor_config.json"]
    with pytest.raises(WeightsChoiceError, match="no tokenizer"):
        judged({"config.json": b"{}", "model.safetensors": b"", **dict.fromkeys(settings, b"{}")})


@pytest.mark.parametrize("name", CONTEXTS)
def test_config_json_says_how_many_tokens_it_allows(name: str) -> None:
    config, limit = CONTEXTS[name]
    assert context_limit(config) == limit
    files = {**WHOLE, "config.json": json.dumps(config).encode()}
    judged(files, context_length=limit)
    if limit:
        with pytest.raises(WeightsChoiceError, match=f"model_context_length is {limit + 1}, .*allows {limit} tokens"):
            judged(files, context_length=limit + 1)


def test_scaling_that_bigdl_does_not_know_is_refused_for_it_alone() -> None:
    for name in ("llama3", "yarn", "longrope"):
        files = {**WHOLE, "config.json": json.dumps(CONTEXTS[name][0]).encode()}
        judged(files, engine="openvino")
        with pytest.raises(WeightsChoiceError, match="engine bigdl supports only linear and dynamic"):
            judged(files, engine="bigdl")
    for name in ("plain", "linear", "dynamic", "default"):
        judged({**WHOLE, "config.json": json.dumps(CONTEXTS[name][0]).encode()}, engine="bigdl")


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model at a path that the service could see (pytest's own are closed), beside a home that it cannot."""
    with tempfile.TemporaryDirectory(dir="/var/lib", prefix="xpu-fleet-test-") as made:
        root = Path(made)
        root.chmod(0o755)
        monkeypatch.setattr(store, "_PRIVATE", (f"{root}/home/",))
        (root / "home").mkdir()
        place = root / "model"
        place.mkdir()
        for name, content in {**WHOLE, "model.safetensors": safetensors()}.items():
            (place / name).write_bytes(content)
        yield place


def at(path: Path) -> WeightsRequest:
    return WeightsRequest(
        directory=path, source={"kind": "path", "location": str(path)}, formats=["safetensors", "gguf"]
    )


def test_folders_beside_a_model_stay(model: Path) -> None:
    for name in ("original", "metal"):
        (model / name).mkdir()
    assert [name for name, _size, _time in json.loads(in_place(at(model))["digest"])] == sorted(WHOLE)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_link_into_a_home_is_refused(model: Path, name: str) -> None:
    assert in_place(at(model))["format"] == "safetensors"
    target = model.parent / "home" / name
    (model / name).rename(target)
    (model / name).symlink_to(target)
    with pytest.raises(
        StoreError, match=rf"{name} is a link to .*/home/{name}, which the sandboxed service cannot read"
    ):
        in_place(at(model))


def test_a_link_that_leads_nowhere_is_refused_and_one_beside_is_followed(model: Path) -> None:
    (model.parent / "blobs").mkdir()
    (model / "tokenizer.json").rename(model.parent / "blobs/abc")
    (model / "tokenizer.json").symlink_to("../blobs/abc")
    assert in_place(at(model))["format"] == "safetensors"
    (model.parent / "blobs/abc").unlink()
    with pytest.raises(StoreError, match=r"tokenizer.json leads to .*blobs/abc, which does not exist"):
        in_place(at(model))


def test_a_link_below_a_closed_directory_is_refused(model: Path) -> None:
    (model.parent / "blobs").mkdir(mode=0o700)
    (model / "tokenizer.json").rename(model.parent / "blobs/abc")
    (model / "tokenizer.json").symlink_to("../blobs/abc")
    with pytest.raises(StoreError, match="blobs cannot be read by the service's user"):
        in_place(at(model))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (safetensors(500)[:-1], "an incomplete safetensors file"),
        (safetensors(500) + b"x", "an incomplete safetensors file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "an incomplete safetensors file"),
        (safetensors(16, "model.layers.0.q_proj.qweight"), "already quantised"),
    ],
)
def test_a_file_that_broke_off_is_refused(model: Path, content: bytes, words: str) -> None:
    (model / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsChoiceError, match=words):
        in_place(at(model))


def test_a_split_gguf_at_a_path_is_taken_by_any_of_its_parts(model: Path) -> None:
    files = parts("m", 3)
    place = model.parent / "gguf"
    place.mkdir()
    for name in files:
        (place / name).write_bytes(b"GGUF" * 10)
    for named in (place, place / files[0], place / files[2]):
        found = in_place(at(named))
        assert (found["path"], found["bytes"]) == (str(place / files[0]), 120)
    (place / files[1]).unlink()
    with pytest.raises(WeightsChoiceError, match=files[1]):
        in_place(at(place / files[0]))
