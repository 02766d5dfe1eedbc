"""Check from their metadata whether chosen weights can be served, before any change on the node.

``read`` is a function that returns the content of a file, wherever it is. The service makes the same checks at
its start, with the same functions.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.model.formats import (
    INDEX,
    WHOLE,
    context_limit,
    part_name,
    quantised,
    quantised_tensor,
    rope_scaling,
    tensors,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.weights import WeightsChoiceError, lacks

_SETTINGS = (
    *("config.json", "generation_config.json", "configuration.json", INDEX),
    # Settings of a tokenizer, without a tokenizer.
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"),
    *("chat_template.json", "preprocessor_config.json", "processor_config.json"),
)
#: Architectures of transformers 4.31, which engine bigdl uses.
_BIGDL_STRETCHING = ("", "linear", "dynamic")

Read = Callable[[str], bytes]


@dataclass(frozen=True)
class Use:
    """The use of the weights: ``engine`` and ``context_length`` (in tokens), empty if unknown."""

    engine: str = ""
    context_length: int = 0


def judge(names: Sequence[str], form: str, read: Read, *, where: str, use: Use = Use()) -> None:
    """Raise WeightsError, naming WHERE, unless NAMES, chosen as FORM, are a whole model that can be served so."""
    if form == "gguf":
        return
    config = _object(read("config.json"), f"config.json of {where}") if "config.json" in names else {}
    if form == "safetensors":
        _judge_shards(names, read, where)
        if config.get("bigdl_transformers_low_bit"):
            raise WeightsChoiceError(
                f"{where} holds weights that BigDL already converted ({config['bigdl_transformers_low_bit']}): name "
                "those that they were made of, and model_low_bit for the format"
            )
        method = quantised(names, config)
        if method:
            raise WeightsChoiceError(
                f"{where} holds weights that are already quantised ({method}), which no engine here reads: take the "
                "model's weights in 16 bits, of which the engine makes its own low-bit format, or a GGUF or OpenVINO "
                "model"
            )
        if not [name for name in names if not _is_settings(name)]:
            raise WeightsChoiceError(
                f"{where} has no tokenizer (tokenizer.json, tokenizer.model, vocab.json, *.tiktoken, ...): copy it "
                "from the model's repository"
            )
        kind = rope_scaling(config)[0]
        if use.engine == "bigdl" and kind not in _BIGDL_STRETCHING:
            raise WeightsChoiceError(
                f"config.json of {where} has rope_scaling of type {kind}, but engine bigdl supports only linear and "
                "dynamic: choose another model, or engine openvino"
            )
    limit = context_limit(config)
    if limit and use.context_length > limit:
        raise WeightsChoiceError(
            f"model_context_length is {use.context_length}, and config.json of {where} allows {limit} tokens: choose "
            f"{limit} or less"
        )


def _is_settings(name: str) -> bool:
    if name.startswith("tokenization") and name.endswith(".py"):
        return False  # a tokenizer in code may need no file
    return name in _SETTINGS or name.endswith((".safetensors", ".py")) or name.upper().startswith(("LICENSE", "NOTICE"))


def _object(content: bytes, what: str) -> dict[str, Any]:
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise WeightsChoiceError(f"{what} is not a JSON object: copy it again")
    return found


def _judge_shards(names: Sequence[str], read: Read, where: str) -> None:
    """Compare the shards with the index."""
    shards = [name for name in names if name.endswith(".safetensors")]
    if INDEX not in names:
        if len(shards) > 1 and any(map(part_name, shards)):
            raise WeightsChoiceError(
                f"{where} has its weights in {len(shards)} parts and no {INDEX}: copy the complete model again"
            )
        return
    mapped = _object(read(INDEX), f"{INDEX} of {where}").get("weight_map")
    places = list(mapped.values()) if isinstance(mapped, dict) else []
    named = sorted({name for name in places if isinstance(name, str)})
    if not named or not all(isinstance(name, str) for name in places):
        raise WeightsChoiceError(f"{INDEX} of {where} names no weights: copy it again")
    missing = [name for name in named if name not in shards]
    deeper = [name for name in missing if "/" in name]
    if deeper:
        raise WeightsChoiceError(
            f"{INDEX} of {where} names files in subfolders ({', '.join(deeper[:3])}), which are not read: put all "
            "files beside the index, and write their names there without folders"
        )
    # If one file has all, engines open that, and the index is of another copy.
    if missing and not (WHOLE in shards and WHOLE not in named):
        raise WeightsChoiceError(lacks(where, missing, f"{len(named)} files of weights that {INDEX} names"))


def judge_header(path: Path) -> None:
    """Raise WeightsError unless a safetensors file is as long as its header says, and not quantised."""
    names = tensors(path)
    if names is None:
        raise WeightsChoiceError(f"{path} is an incomplete safetensors file: copy it again")
    layer = quantised_tensor(names)
    if layer:
        raise WeightsChoiceError(
            f"{path} holds weights that are already quantised ({layer}): take the model's weights in 16 bits"
        )
