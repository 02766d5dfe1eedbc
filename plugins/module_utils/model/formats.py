"""Metadata in model files: names of parts, config.json, the header of safetensors.

It needs only Python's own library, for two readers: the roles' preflight on a node without an engine, and the
service, whose package has this file as a link. It runs nothing of a model.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

#: The list of a model's shards.
INDEX = "model.safetensors.index.json"
#: The file of a model without shards. If it exists, engines open it, whatever the index says.
WHOLE = "model.safetensors"
_PART = re.compile(r"(?i)(?P<stem>.+)-(?P<number>\d+)-of-(?P<total>\d+)\.(?P<suffix>gguf|safetensors)")
_MOST_PARTS = 10_000
#: Files of tools that quantised the weights beside them: AutoGPTQ, AutoAWQ, NVIDIA's ModelOpt.
_QUANTISED_BY = {"quantize_config.json": "GPTQ", "quant_config.json": "AWQ", "hf_quant_config.json": "ModelOpt"}
#: Tensors that only quantised layers have.
_QUANTISED_TENSORS = (".qweight", ".qzeros", ".weight_packed", ".weight_scale_inv", ".quant_map", ".absmax")
#: Keys of the context length in tokens (llama; chatglm, qwen; gpt2; mpt).
_LENGTHS = ("max_position_embeddings", "seq_length", "n_positions", "max_seq_len", "max_sequence_length")
#: Where models for images or speech keep the settings of their language model.
_NESTED = (
    *("text_config", "llm_config", "language_config", "language_model_config", "language_model", "lm_config"),
    *("thinker_config", "text_model", "decoder_config"),
)
#: Ways to stretch a context that do not change max_position_embeddings, so their factor counts.
_STRETCHING = ("linear", "dynamic", "yarn", "ntk")
#: For these, max_position_embeddings includes the factor.
_STRETCHED = ("gemma3",)


@dataclass(frozen=True)
class PartName:
    """The file name of one part of a split model."""

    stem: str
    number: str
    total: str
    suffix: str

    @property
    def siblings(self) -> list[str]:
        """The names of all parts, in order."""
        width = len(self.number)
        return [
            f"{self.stem}-{number:0{width}}-of-{self.total}.{self.suffix}" for number in range(1, int(self.total) + 1)
        ]


def part_name(name: str) -> Optional[PartName]:
    """Parse the name of a part (model-00001-of-00003.gguf); None for a whole file."""
    match = _PART.fullmatch(name)
    if not match or not 1 <= int(match["number"]) <= int(match["total"]) <= _MOST_PARTS:
        return None
    return PartName(match["stem"], match["number"], match["total"], match["suffix"])


def quantised(names: Iterable[str], config: Mapping[str, Any]) -> str:
    """Return the method with which safetensors were quantised, "" if they were not.

    NAMES are the files beside them, CONFIG is config.json.
    """
    for part in (config, *(part for part in config.values() if isinstance(part, dict))):
        settings = part.get("quantization_config") or part.get("compression_config")
        if isinstance(settings, dict):
            bits = next(
                (f"bitsandbytes, {key[8:]}" for key in ("load_in_4bit", "load_in_8bit") if settings.get(key)), ""
            )
            method = settings.get("quant_method") or settings.get("quant_algo") or bits
            return str(method or "by an unknown tool")
    known = set(names)
    return next((tool for name, tool in _QUANTISED_BY.items() if name in known), "")


def quantised_tensor(names: Iterable[str]) -> str:
    """Return the first of the NAMES in safetensors files that only quantised layers have, "" without one."""
    return next((name for name in names if name.endswith(_QUANTISED_TENSORS)), "")


def context_limit(config: Mapping[str, Any]) -> int:
    """Return the tokens of prompt and answer that config.json allows, 0 if it does not say.

    A model with scaled rotary embeddings supports factor times its training length. Some configurations state
    that length before scaling, some after: original_max_position_embeddings, if given, tells which.
    """
    text = _text_config(config)
    length = next((_number(text.get(key)) for key in _LENGTHS if _number(text.get(key)) > 0), 0.0)
    kind, scaling = rope_scaling(config)
    stretched = str(text.get("model_type") or "").startswith(_STRETCHED)
    if not length or kind not in _STRETCHING or stretched:
        return int(length)
    trained = _number(scaling.get("original_max_position_embeddings"))
    trained = trained or _number(text.get("original_max_position_embeddings")) or length
    return int(max(length, trained * max(1.0, _number(scaling.get("factor")))))


def rope_scaling(config: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """Return the kind of rotary scaling, "" for none, and its settings.

    transformers 5 calls them rope_parameters, and some models have them for each kind of attention.
    """
    text = _text_config(config)
    scaling = text.get("rope_scaling") or text.get("rope_parameters")
    if isinstance(scaling, dict) and isinstance(scaling.get("full_attention"), dict):
        scaling = scaling["full_attention"]
    if not isinstance(scaling, dict):
        return "", {}
    kind = str(scaling.get("rope_type") or scaling.get("type") or "").lower()
    return "" if kind == "default" else kind, scaling


def _text_config(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the part of config.json about the language model: multimodal models nest it, some twice."""
    for key in _NESTED:
        if isinstance(config.get(key), dict):
            return {**config, **_text_config(config[key])}
    return config


def _number(value: Any) -> float:
    try:
        found = float(value) if not isinstance(value, bool) else 0.0
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return found if 0 < found < 1e12 else 0.0


def tensors(path: Path) -> Optional[list[str]]:
    """Return the names in a safetensors file, None unless its size is exactly what its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        length: int = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 0 < length < size:
            return None
        try:
            entries = json.loads(file.read(length))
            ends = {name: int(entry["data_offsets"][1]) for name, entry in entries.items() if name != "__metadata__"}
        except (ValueError, TypeError, KeyError, AttributeError, IndexError, RecursionError):
            return None
    return list(ends) if ends and 8 + length + max(ends.values()) == size else None
