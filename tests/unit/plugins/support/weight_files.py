"""Tiny model files that are whole."""

from __future__ import annotations

import json
import struct


def safetensors(size: int = 16, *names: str) -> bytes:
    """A whole safetensors file with SIZE bytes in its tensors."""
    header = json.dumps(
        {name: {"dtype": "U8", "shape": [size], "data_offsets": [0, size]} for name in names or ("weight",)}
    ).encode()
    return struct.pack("<Q", len(header)) + header + bytes(size)


def index(*shards: str) -> bytes:
    """An index that names SHARDS."""
    return json.dumps({"weight_map": {f"layer.{n}.weight": shard for n, shard in enumerate(shards)}}).encode()
