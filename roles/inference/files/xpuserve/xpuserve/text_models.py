"""The embedding and the rerank model beside the chat model: what their files say, read without loading them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpuserve import formats
from xpuserve.weights import WeightsError

if TYPE_CHECKING:
    from xpuserve.settings import Settings

# Longest text in tokens, whatever the model: one text is one piece of work for the device, as long as it takes.
LONGEST = 8192
# Models that number positions from the id of their padding token on.
_PADDED_POSITIONS = ("roberta", "xlm-roberta", "camembert", "mpnet")
# sentence-transformers' names of the ways to make one vector of a text's, in its 1_Pooling/config.json.
_POOLINGS = {"pooling_mode_cls_token": "cls", "pooling_mode_mean_tokens": "mean", "pooling_mode_lasttoken": "last"}
_FILES = ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml", "config.json")


@dataclass(frozen=True)
class TextModel:
    """A model in OpenVINO's format.

    `max_tokens` is for one text, or a query with one; `pooling`, of an embedding model, is cls, mean or last.
    """

    name: str
    path: Path
    max_tokens: int
    pooling: str = ""

    @property
    def bytes(self) -> int:
        """The size of its weights."""
        return (self.path / "openvino_model.bin").stat().st_size


def of(settings: Settings) -> dict[str, TextModel]:
    """The configured models, by what they are for: embedding, rerank. Raises WeightsError."""
    found = {}
    if settings.embedding_model:
        path = Path(settings.embedding_model)
        pooling = settings.embedding_pooling
        found["embedding"] = _inspect(path, _pooling(path) if pooling == "auto" else pooling)
    if settings.rerank_model:
        found["rerank"] = _inspect(Path(settings.rerank_model))
    return found


def _inspect(path: Path, pooling: str = "") -> TextModel:
    missing = [name for name in _FILES if not (path / name).is_file()]
    if missing:
        raise WeightsError(f"{path}: not a model in OpenVINO's format: {', '.join(missing)} is missing")
    config, tokenizer = _read(path / "config.json"), _read(path / "tokenizer_config.json")
    limit = formats.context_limit(config) or LONGEST
    if config.get("model_type") in _PADDED_POSITIONS:
        limit -= int(config.get("pad_token_id") or 1) + 1
    said = tokenizer.get("model_max_length")  # of a tokenizer without a limit it is 10^30
    limit = min(limit, LONGEST, int(said) if isinstance(said, (int, float)) and said >= 1 else LONGEST)
    return TextModel(path.name, path, limit, pooling)


def _pooling(path: Path) -> str:
    said = _read(path / "1_Pooling/config.json")
    found = [pooling for name, pooling in _POOLINGS.items() if said.get(name)]
    if len(found) != 1:
        raise WeightsError(
            f"{path}: 1_Pooling/config.json does not name one pooling of {', '.join(_POOLINGS.values())}: set "
            "embedding_pooling to that of the model's documentation"
        )
    return found[0]


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty if there is no such file. Raises WeightsError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: {error}") from None
    return data if isinstance(data, dict) else {}
