"""Tiny model files that are whole, and what config.json may say."""

from __future__ import annotations

import json
import struct
from typing import Any


def safetensors(size: int = 16, *names: str) -> bytes:
    """A whole safetensors file with SIZE bytes in its tensors."""
    header = json.dumps(
        {name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]} for name in names or ("weight",)}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def index(*shards: str) -> bytes:
    """An index that names SHARDS."""
    return json.dumps({"weight_map": {f"layer.{n}.weight": shard for n, shard in enumerate(shards)}}).encode()


def llama(length: int, **scaling: Any) -> dict[str, Any]:
    return {"model_type": "llama", "max_position_embeddings": length, "rope_scaling": scaling or None}


#: config.json, and the tokens that it allows: for the role's preflight and for the service.
CONTEXTS: dict[str, tuple[dict[str, Any], int]] = {
    "plain": (llama(2048), 2048),
    "linear": (llama(2048, type="linear", factor=8.0), 16384),
    "dynamic": (llama(4096, type="dynamic", factor=2), 8192),
    "yarn": (llama(32768, rope_type="yarn", factor=4.0, original_max_position_embeddings=32768), 131072),
    "yarn, applied already": (
        llama(131072, rope_type="yarn", factor=4.0, original_max_position_embeddings=32768),
        131072,
    ),
    "yarn, without the original": (llama(32768, type="yarn", factor=2.0), 65536),
    "yarn, factor larger than what is stated": (
        llama(163840, type="yarn", factor=40, original_max_position_embeddings=4096),
        163840,
    ),
    "llama3": (llama(131072, rope_type="llama3", factor=8.0, original_max_position_embeddings=8192), 131072),
    "longrope": (
        {**llama(131072, type="longrope", long_factor=[1.0]), "original_max_position_embeddings": 4096},
        131072,
    ),
    "su": (llama(131072, type="su", short_factor=[1.0]), 131072),
    "default": (llama(8192, rope_type="default", factor=4.0), 8192),
    "mrope": (llama(32768, type="mrope", mrope_section=[1, 2]), 32768),
    "nested": ({"model_type": "llava", "text_config": llama(4096, type="linear", factor=2.0)}, 8192),
    "nested twice, as models that hear and speak": (
        {"thinker_config": {"text_config": llama(32768, rope_type="yarn", factor=2.0)}, "talker_config": llama(8192)},
        65536,
    ),
    "in thinker_config": ({"model_type": "omni", "thinker_config": llama(32768)}, 32768),
    "in language_model": ({"language_model": llama(16384, type="linear", factor=2)}, 32768),
    "in language_model_config": ({"language_model_config": {"llm_config": llama(4096)}, "vision_config": {}}, 4096),
    "nested, stated after scaling": (
        {
            "model_type": "gemma3",
            "text_config": {**llama(131072, rope_type="linear", factor=8.0), "model_type": "gemma3_text"},
        },
        131072,
    ),
    "transformers 5": (
        {"max_position_embeddings": 4096, "rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
        8192,
    ),
    "transformers 5, by kind of attention": (
        {
            "max_position_embeddings": 8192,
            "rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0}, "sliding_attention": {}},
        },
        32768,
    ),
    "chatglm": ({"seq_length": 8192}, 8192),
    "gpt2": ({"n_positions": 1024}, 1024),
    "a factor in words": (llama(4096, type="linear", factor="2.0"), 8192),
    "a factor below one": (llama(4096, type="linear", factor=0.5), 4096),
    "a factor that is none": (llama(4096, type="linear", factor=None), 4096),
    "a factor that is no number": (llama(4096, type="linear", factor=float("nan")), 4096),
    "scaling that is none": ({"max_position_embeddings": 4096, "rope_scaling": "linear"}, 4096),
    "a length that is none": ({"max_position_embeddings": "many", "seq_length": 512}, 512),
    "nothing": ({}, 0),
}
