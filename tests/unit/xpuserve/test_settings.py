from __future__ import annotations

import json
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.weight_files import CONTEXTS
from xpuserve import cli, weights
from xpuserve.settings import Settings, SettingsError, check_model


def safetensors(path: Path, size: int = 4) -> None:
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def model_directory(path: Path, **config: Any) -> Path:
    path.mkdir()
    default = {"architectures": ["LlamaForCausalLM"], "max_position_embeddings": 4096, "hidden_size": 64}
    (path / "config.json").write_text(json.dumps({**default, **config}))
    safetensors(path / "model.safetensors")
    return path


def gguf(path: Path, tokenizer: str = "gpt2") -> Path:
    def string(text: str) -> bytes:
        return struct.pack("<Q", len(text)) + text.encode()

    keys = [
        string("general.architecture") + struct.pack("<I", 8) + string("llama"),
        string("tokenizer.ggml.model") + struct.pack("<I", 8) + string(tokenizer),
        string("tokens") + struct.pack("<IIQ", 9, 8, 2) + string("a") + string("b"),
        string("scores") + struct.pack("<IIQff", 9, 6, 2, 0.5, 1.5),
        string("llama.context_length") + struct.pack("<II", 4, 2048),
    ]
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)) + b"".join(keys) + bytes(100))
    return path


@pytest.fixture
def config(tmp_path: Path) -> dict[str, Any]:
    return {
        "engine": "bigdl",
        "device": "cpu",
        "host": "127.0.0.1",
        "port": 8000,
        "model": {
            "name": "m",
            "path": str(model_directory(tmp_path / "model")),
            "format": "safetensors",
            "low_bit": "sym_int8",
            "prompt_format": "llama-2",
            "context_length": 2048,
            "trust_remote_code": False,
            "revision": "",
        },
        "cache_dir": str(tmp_path / "cache"),
        "threads": 0,
        "max_tokens_default": 512,
        "sampling_defaults": {"temperature": 0.7},
        "warm_up": True,
    }


def check(tmp_path: Path, config: Any) -> int:
    file = tmp_path / "config.json"
    file.write_text(config if isinstance(config, str) else json.dumps(config))
    return cli.main(["check", "--config", str(file)])


def change(config: dict[str, Any], key: str, value: Any) -> None:
    *path, last = key.split(".")
    for part in path:
        config = config[part]
    config[last] = value


def test_a_good_configuration(tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path, config) == 0
    assert "ok, m by bigdl on the cpu" in capsys.readouterr().out


def test_a_configuration_is_checked_with_its_keys(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "api_keys"
    config["api_keys_file"] = str(file)
    file.write_text("0123456789abcdef")
    file.chmod(0o640)
    assert check(tmp_path, config) == 0
    file.chmod(0o644)
    assert check(tmp_path, config) == 2
    assert "too open" in capsys.readouterr().err


BAD = {
    "unknown key": ("prot", 1, "prot"),
    "unknown key of the model": ("model.lowbit", "x", "model.lowbit"),
    "wrong type": ("port", "8000", "port"),
    "port out of range": ("port", 70000, "port"),
    "unknown default": ("sampling_defaults.temprature", 1, "sampling_defaults.temprature"),
    "default out of range": ("sampling_defaults.temperature", 3, "sampling_defaults.temperature"),
    "no time to end": ("stop_timeout", 0, "stop_timeout"),
    "wrong type of a switch": ("warm_up", 1, "warm_up"),
    "unknown engine": ("engine", "vllm", "engine"),
    "unknown device": ("device", "npu", "device"),
    "unknown prompt format": ("model.prompt_format", "alpaca", "model.prompt_format"),
    "unknown low-bit format": ("model.low_bit", "int3", "'int3' is unknown; known formats: sym_int4"),
    "low-bit format missing": ("model.low_bit", "", "'' is unknown"),
    "a format that the CPU refuses": ("model.low_bit", "nf4", "device cpu cannot run model.low_bit nf4"),
    "weights for another engine": ("model.format", "gguf", "engine bigdl reads safetensors or low_bit"),
    "remote code without a revision": ("model.trust_remote_code", True, "set revision to pin it"),
    "files of another format": ("model.format", "low_bit", "has a safetensors model"),
    "missing model": ("model.path", "/nowhere", "/nowhere: model file or directory not found"),
    "longer context than trained": ("model.context_length", 8192, "the model's maximum is 4096"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_bad_configurations_are_one_clear_error(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str], bad: tuple[str, Any, str]
) -> None:
    key, value, message = bad
    change(config, key, value)
    assert check(tmp_path, config) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", ["{", "[]", "null"])
def test_a_configuration_that_is_no_json_object(tmp_path: Path, content: str) -> None:
    assert check(tmp_path, content) == 2


def test_a_missing_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--config", str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err


@pytest.mark.parametrize("low_bit", ["nf3", "nf4", "fp4", "fp8", "mixed_4bit", "sym_int4", "fp16"])
def test_a_gpu_takes_every_format(tmp_path: Path, config: dict[str, Any], low_bit: str) -> None:
    config["device"] = "gpu"
    config["model"]["low_bit"] = low_bit
    assert check(tmp_path, config) == 0


def test_fp16_on_the_cpu_is_refused_where_bigdl_has_no_kernel(tmp_path: Path, config: dict[str, Any]) -> None:
    config["model"]["low_bit"] = "fp16"
    assert check(tmp_path, config) == 0
    config["model"]["path"] = str(model_directory(tmp_path / "wide", hidden_size=4096))
    assert check(tmp_path, config) == 2


def test_a_converted_model_must_have_the_format_that_is_wanted(tmp_path: Path, config: dict[str, Any]) -> None:
    model = model_directory(tmp_path / "converted", bigdl_transformers_low_bit="asym_int4")
    config["model"].update(path=str(model), format="low_bit", low_bit="asym_int4")
    assert check(tmp_path, config) == 0
    config["model"]["low_bit"] = "sym_int8"
    assert check(tmp_path, config) == 2


def test_openvino_takes_no_low_bit_format(tmp_path: Path, config: dict[str, Any]) -> None:
    config["engine"] = "openvino"
    config["model"].update(path=str(gguf(tmp_path / "m.gguf")), format="gguf")
    assert check(tmp_path, config) == 2
    config["model"]["low_bit"] = ""
    assert check(tmp_path, config) == 0


def test_openvino_takes_no_gguf_file_whose_tokenizer_it_cannot_read(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config["engine"] = "openvino"
    config["model"].update(path=str(gguf(tmp_path / "m.gguf", "llama")), format="gguf", low_bit="")
    assert check(tmp_path, config) == 2
    assert "a tokenizer of kind llama, but OpenVINO reads only gpt2" in capsys.readouterr().err


@pytest.mark.parametrize(
    "case",
    [
        *(("cpu", name, "") for name in ("", "bf16", "fp16", "fp32", "sym_int8")),
        *(("gpu", name, "") for name in ("", "fp16", "sym_int4", "fp8")),
        ("cpu", "fp8", "device cpu cannot run model.low_bit fp8; it runs: bf16, fp16, fp32, sym_int4"),
        ("gpu", "mixed_4bit", "'mixed_4bit' is unknown; known formats: bf16, fp16, fp32, sym_int4"),
    ],
)
def test_torch_takes_a_model_as_wide_as_is_said_or_in_low_bit(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str], case: tuple[str, str, str]
) -> None:
    device, low_bit, said = case
    wide = str(model_directory(tmp_path / "wide", hidden_size=4096))  # which bigdl has no fp16 for on a CPU
    config.update(engine="torch", device=device)
    config["model"].update(low_bit=low_bit, path=wide)
    assert check(tmp_path, config) == (2 if said else 0)
    assert said in capsys.readouterr().err


def test_torch_reads_no_converted_model_and_makes_none(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    config["engine"] = "torch"
    assert check(tmp_path, config) == 0
    file, output = tmp_path / "config.json", tmp_path / "converted"
    assert cli.main(["convert", "--config", str(file), "--output", str(output)]) == 2
    assert "only engine bigdl converts models" in capsys.readouterr().err
    assert not output.exists()
    config["model"]["format"] = "low_bit"
    assert check(tmp_path, config) == 2
    assert "engine torch reads safetensors models" in capsys.readouterr().err


def test_a_taken_port_is_a_clear_error(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config["port"] = taken.getsockname()[1] - 1
        (tmp_path / "config.json").write_text(json.dumps(config))
        status = cli.main(["serve", "--config", str(tmp_path / "config.json"), "--instance", "1"])
    assert status == 1  # it may be free later
    assert f"port {config['port'] + 1}: Address already in use" in capsys.readouterr().err


# 192.0.2.1 belongs to nobody: like an address that the network has not assigned to the node yet.
@pytest.mark.parametrize("case", [("host", "192.0.2.1", 1), ("host", "no address", 2), ("port", 65535, 2)])
def test_what_cannot_get_better_is_not_tried_again(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str], case: tuple[str, Any, int]
) -> None:
    key, value, status = case
    config[key] = value
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert cli.main(["serve", "--config", str(tmp_path / "config.json"), "--instance", "1"]) == status
    assert "cannot listen on" in capsys.readouterr().err


def test_inspect_a_directory(tmp_path: Path) -> None:
    found = weights.inspect(model_directory(tmp_path / "m"))
    assert (found.format, found.architecture, found.context_length) == ("safetensors", "LlamaForCausalLM", 4096)
    assert found.bytes == (tmp_path / "m/model.safetensors").stat().st_size


@pytest.mark.parametrize(("sizes", "widths"), [([8192, 4096], {64}), (None, {64}), (128, {64, 128})])
def test_widths_may_differ_from_layer_to_layer(tmp_path: Path, sizes: Any, widths: set[int]) -> None:
    model = model_directory(tmp_path / "m")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "hidden_size": 64, "intermediate_size": sizes}))
    assert weights.inspect(model).widths == widths


@pytest.mark.parametrize("mapped", [None, [], ["a"], "a", {"a": {}}])
def test_an_index_that_names_nothing_is_refused(tmp_path: Path, mapped: Any) -> None:
    model = model_directory(tmp_path / "m")
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": mapped}))
    with pytest.raises(weights.WeightsError):
        weights.inspect(model)


@pytest.mark.parametrize("left", [[], ["model-00001-of-00002.safetensors"], ["other.safetensors"]])
def test_an_index_of_another_copy_does_not_matter_beside_a_whole_file(tmp_path: Path, left: list[str]) -> None:
    model = model_directory(tmp_path / "m")
    whole = weights.inspect(model).bytes
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in left:
        (model / name).write_bytes(b"cut")
    assert weights.inspect(model).bytes == whole


def test_inspect_a_gguf_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(gguf(tmp_path / "m.gguf"))]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["architecture"], found["context_length"]) == ("gguf", "llama", 2048)


def test_inspect_an_openvino_model(tmp_path: Path) -> None:
    for name in ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.bin"):
        (tmp_path / name).write_bytes(b"1234")
    assert weights.inspect(tmp_path).format == "openvino"


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickle_weights_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert cli.main(["inspect", str(tmp_path)]) == 3
    assert cli.main(["inspect", str(tmp_path / name)]) == 3


def test_pickle_weights_beside_safetensors_are_named(tmp_path: Path) -> None:
    model = model_directory(tmp_path / "m")
    (model / "pytorch_model.bin").write_bytes(b"x")
    assert weights.inspect(model).pickle == ["pytorch_model.bin"]


@pytest.mark.parametrize("damage", ["safetensors", "gguf", "index", "config", "empty"])
def test_damaged_models_are_refused(tmp_path: Path, damage: str) -> None:
    model = model_directory(tmp_path / "m")
    if damage == "safetensors":
        data = (model / "model.safetensors").read_bytes()
        (model / "model.safetensors").write_bytes(data[:-1])
    elif damage == "gguf":
        whole = gguf(tmp_path / "m.gguf").read_bytes()
        model = tmp_path / "m.gguf"
        model.write_bytes(whole[:60])
    elif damage == "index":
        index = {"weight_map": {"w": "model-00001-of-00002.safetensors"}}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))
        (model / "model.safetensors").rename(model / "model-00002-of-00002.safetensors")
    elif damage == "config":
        (model / "config.json").write_text("{")
    else:
        (model / "model.safetensors").write_bytes(b"")
    with pytest.raises(weights.WeightsError):
        weights.inspect(model)
    assert cli.main(["inspect", str(model)]) == 2


def test_converted_files_are_on_the_disk_before_their_directory_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = model_directory(tmp_path / ".m.partial")
    steps = []
    monkeypatch.setattr(os, "fsync", lambda fd: steps.append(Path(f"/proc/self/fd/{fd}").readlink().name))
    weights.publish(partial, tmp_path / "m")
    assert sorted(steps[:2]) == ["config.json", "model.safetensors"]
    assert steps[2:] == [".m.partial", tmp_path.name]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def checked(config: dict[str, Any], tokens: int) -> None:
    """Let the service look at its model for a context of so many tokens."""
    config["model"]["context_length"] = tokens
    check_model(Settings.model_validate(config))


@pytest.mark.parametrize("name", [name for name, (_, limit) in CONTEXTS.items() if limit])
def test_a_context_may_be_as_long_as_config_json_allows(config: dict[str, Any], name: str) -> None:
    said, limit = CONTEXTS[name]
    path = Path(config["model"]["path"]) / "config.json"
    path.write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **said}))
    checked(config, limit)
    with pytest.raises(SettingsError, match=f"the model's maximum is {limit}"):
        checked(config, limit + 1)


@pytest.mark.parametrize(
    ("said", "method"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"quantization_config": {"quant_method": "awq"}}, "awq"),
        ({"text_config": {"quantization_config": {"load_in_8bit": True}}}, "bitsandbytes, 8bit"),
    ],
)
def test_weights_that_were_quantised_elsewhere_are_refused(
    config: dict[str, Any], said: dict[str, Any], method: str
) -> None:
    path = Path(config["model"]["path"]) / "config.json"
    path.write_text(json.dumps({"architectures": ["LlamaForCausalLM"], **said}))
    with pytest.raises(SettingsError, match=rf"already quantised \({method}\)"):
        checked(config, 64)


def test_a_shard_that_lacks_is_named_and_adapters_beside_weights_do_not_count(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "sharded")
    (path / "model.safetensors").rename(path / "a.safetensors")
    safetensors(path / "adapter_model.safetensors", 400)
    alone = weights.inspect(path).bytes
    (path / "model.safetensors.index.json").write_text('{"weight_map": {"v": "a.safetensors", "w": "b.safetensors"}}')
    with pytest.raises(weights.WeightsError, match=r"missing: b.safetensors"):
        weights.inspect(path)
    safetensors(path / "b.safetensors")
    assert weights.inspect(path).bytes == 2 * alone


def test_a_split_gguf_is_opened_by_its_first_part_and_whole(tmp_path: Path) -> None:
    first = gguf(tmp_path / "m-00001-of-00002.gguf")
    with pytest.raises(weights.WeightsError, match=r"m-00002-of-00002.gguf is missing"):
        weights.inspect(first)
    second = gguf(tmp_path / "m-00002-of-00002.gguf")
    assert weights.inspect(first).bytes == first.stat().st_size + second.stat().st_size
    with pytest.raises(weights.WeightsError, match=r"name m-00001-of-00002.gguf"):
        weights.inspect(second)


def test_a_converted_model_takes_every_file_of_its_tokenizer_along(tmp_path: Path) -> None:
    path = model_directory(tmp_path / "qwen")
    kept = {"qwen.tiktoken", "tokenizer_config.json", "sentencepiece.bpe.model", "modeling_qwen.py", "config.json"}
    for name in [*kept - {"config.json"}, "pytorch_model.bin", "m.gguf", ".xpu-manifest.json", "adapter_config.json"]:
        (path / name).write_text("{}")
    assert {file.name for file in weights.companions(path)} == kept
