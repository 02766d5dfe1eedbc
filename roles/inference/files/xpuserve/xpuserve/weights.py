"""Model files, read from their headers: without any engine library, and without running anything in them."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from xpuserve import formats

# Pickle: loading one of these runs its author's code.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Tokenizers of large vocabularies have 30 MB; larger files are weights in some form.
_LARGEST_COMPANION = 128 * 1024 * 1024
_NOT_WEIGHTS = {"training_args.bin", "openvino_tokenizer.bin", "openvino_detokenizer.bin"}


class WeightsError(Exception):
    """The path has no model that can be served."""


class PickleError(WeightsError):
    """The only weights are pickle files."""


@dataclass
class Weights:
    """A model's files. `bytes` counts the weights only; `context_length` is in tokens, 0 if it is not said. `tokenizer`
    is a GGUF file's kind of it.
    """

    path: str
    format: str
    bytes: int
    architecture: str = ""
    context_length: int = 0
    low_bit: str = ""
    tokenizer: str = ""
    pickle: list[str] = field(default_factory=list)
    widths: set[int] = field(default_factory=set)

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps({**asdict(self), "widths": sorted(self.widths)}, indent=2)


def inspect(path: Path) -> Weights:
    """Describe the model at `path`. Raises PickleError or WeightsError."""
    try:
        if path.is_file():
            return _gguf(path)
        if path.is_dir():
            return _directory(path)
    except OSError as error:
        raise WeightsError(f"{error.filename or path}: {error.strerror}") from None
    raise WeightsError(f"{path}: model file or directory not found")


def publish(partial: Path, output: Path) -> None:
    """Rename a finished directory of model files; after a power cut it is there completely or not at all."""
    for path in (*partial.iterdir(), partial):
        _sync(path)
    partial.rename(output)
    _sync(output.parent)


def companions(path: Path) -> list[Path]:
    """Files beside the weights in a directory: tokenizer, whatever its files are called, settings and code."""
    weights = (*PICKLE_SUFFIXES, ".safetensors", ".gguf")
    return [
        file
        for file in sorted(path.iterdir())
        if file.is_file() and file.suffix not in weights and file.stat().st_size <= _LARGEST_COMPANION
        if not file.name.startswith((".", "adapter_")) and file.name != formats.INDEX
    ]


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _directory(path: Path) -> Weights:
    if (path / "openvino_model.xml").is_file():
        size = _size([path / "openvino_model.bin"])
        return _with_config(Weights(str(path), "openvino", size), path)
    pickle = sorted(f.name for f in path.iterdir() if f.suffix in PICKLE_SUFFIXES and f.name not in _NOT_WEIGHTS)
    shards = _shards(path)
    if not shards:
        if pickle:
            raise PickleError(
                f"{path}: the weights are pickle files ({', '.join(pickle)}), which can run code when loaded; use "
                "safetensors or GGUF"
            )
        raise WeightsError(f"{path}: no weights here; add *.safetensors, a GGUF file or an OpenVINO model")
    names = [name for shard in shards for name in _tensors(shard)]
    found = _with_config(Weights(str(path), "safetensors", _size(shards), pickle=pickle), path)
    if not found.architecture:
        raise WeightsError(f"{path}: config.json is missing or names no architecture")
    method = formats.quantised([file.name for file in path.iterdir()], _config(path)) or formats.quantised_tensor(names)
    if method and not found.low_bit:
        raise WeightsError(f"{path}: the weights are already quantised ({method}); use weights in 16 bits")
    return found


def _shards(path: Path) -> list[Path]:
    """The files that transformers opens: one, or those of the index; no adapter and no second copy."""
    single, index = path / formats.WHOLE, path / formats.INDEX
    if index.is_file():
        mapped = _read_json(index).get("weight_map")
        if not isinstance(mapped, dict) or not all(isinstance(name, str) for name in mapped.values()):
            raise WeightsError(f"{index}: it lists no weight files")
        names = sorted(set(mapped.values()))
        missing = [name for name in names if not (path / name).is_file()]
        if missing and single.is_file() and single.name not in names:
            return [single]  # the index is of another copy
        if missing:
            raise WeightsError(f"{path}: weight files of the index are missing: {', '.join(missing)}")
        return [path / name for name in names]
    if single.is_file():
        return [single]
    return sorted(file for file in path.glob("*.safetensors") if not file.name.startswith(("adapter_", "consolidated")))


def _config(path: Path) -> dict[str, Any]:
    return _read_json(path / "config.json") if (path / "config.json").is_file() else {}


def _with_config(weights: Weights, path: Path) -> Weights:
    config = _config(path)
    weights.architecture = next(iter(config.get("architectures") or []), "")
    weights.context_length = formats.context_limit(config)
    # Some models have a list of them, one for each layer.
    widths = (config.get(key) for key in ("hidden_size", "intermediate_size", "ffn_hidden_size"))
    weights.widths = {size for size in widths if isinstance(size, int)}
    if low_bit := config.get("bigdl_transformers_low_bit"):
        weights.format, weights.low_bit = "low_bit", low_bit
    return weights


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise WeightsError(f"{path}: not JSON: {error}") from None
    if not isinstance(data, dict):
        raise WeightsError(f"{path}: not a JSON object")
    return data


def _size(files: list[Path]) -> int:
    return sum(file.stat().st_size for file in files)


def _tensors(path: Path) -> list[str]:
    names = formats.tensors(path)
    if names is None:
        raise WeightsError(f"{path}: an incomplete safetensors file")
    return names


def _gguf(path: Path) -> Weights:
    size = _size(_gguf_parts(path))
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            if path.suffix in PICKLE_SUFFIXES:
                raise PickleError(f"{path}: a pickle file; use safetensors or GGUF")
            raise WeightsError(f"{path}: not a GGUF file")
        try:
            keys = _gguf_keys(file)
        except (struct.error, ValueError, KeyError):
            raise WeightsError(f"{path}: the GGUF header is damaged") from None
    architecture = str(keys.get("general.architecture", ""))
    context_length = int(keys.get(f"{architecture}.context_length", 0))
    tokenizer = str(keys.get("tokenizer.ggml.model", ""))
    return Weights(str(path), "gguf", size, architecture, context_length, tokenizer=tokenizer)


def _gguf_parts(path: Path) -> list[Path]:
    """The files of a GGUF model; engines find the others by the name of the first."""
    part = formats.part_name(path.name)
    if part is None:
        return [path]
    parts = [path.with_name(name) for name in part.siblings]
    missing = [file.name for file in parts if not file.is_file()]
    if missing or path != parts[0]:
        raise WeightsError(f"{path}: {', '.join(missing)} is missing" if missing else f"{path}: name {parts[0].name}")
    return parts


# GGUF value types by number (the format's specification, version 3).
_GGUF_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_GGUF_STRING, _GGUF_ARRAY = 8, 9


def _gguf_keys(file: BinaryIO) -> dict[str, Any]:
    """The metadata of a GGUF file; arrays are skipped."""
    version, _ignored, count = _unpack(file, "IQQ")
    if version not in (2, 3):
        raise ValueError(version)
    keys = {}
    for _turn in range(count):
        name = _gguf_string(file)
        (kind,) = _unpack(file, "I")
        keys[name] = _gguf_value(file, kind)
    return keys


def _gguf_value(file: BinaryIO, kind: int) -> Any:
    if kind == _GGUF_STRING:
        return _gguf_string(file)
    if kind != _GGUF_ARRAY:
        return _unpack(file, _GGUF_SCALARS[kind])[0]
    item, count = _unpack(file, "IQ")
    if item in _GGUF_SCALARS:
        file.seek(count * struct.calcsize(_GGUF_SCALARS[item]), 1)
    else:
        for _turn in range(count):
            _gguf_value(file, item)
    return None


def _gguf_string(file: BinaryIO) -> str:
    (length,) = _unpack(file, "Q")
    data = file.read(length)
    if len(data) != length:
        raise ValueError(length)
    return data.decode("utf-8", "replace")


def _unpack(file: BinaryIO, layout: str) -> tuple[Any, ...]:
    layout = "<" + layout
    return struct.unpack(layout, file.read(struct.calcsize(layout)))
