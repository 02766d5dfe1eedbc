"""Choose a node's weights, their source and format, and check that they fit: on the controller."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional
from urllib.parse import urlsplit

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

SOURCE_KINDS = ("huggingface", "path", "controller_path", "url", "wheel")
_SOURCE_OPTIONS: dict[str, frozenset[str]] = {
    "huggingface": frozenset({"revision", "files", "gated", "download_bytes", "sha256"}),
    "path": frozenset({"file"}),
    "controller_path": frozenset({"file"}),
    "url": frozenset({"sha256", "file", "download_bytes"}),
    "wheel": frozenset({"sha256", "member", "download_bytes"}),
}
_ENTRY_OPTIONS = frozenset(
    {
        "title", "licence", "parameters", "embedding_parameters", "kv_bytes_per_token",
        "context_length", "prompt_format", "remote_code", "sources",
    }
)  # fmt: skip
_PROMPT_FORMATS = ("tokenizer", "llama-2", "chatglm2")
# Memory that an engine needs beside weights and KV cache: its kernels, activations and scratch space.
RUNTIME_BYTES = 512 * 1024**2


class ModelError(FleetError):
    """The model cannot be served as requested; the message says why and what can."""


@dataclass(frozen=True)
class ModelRequest:
    """The operator's request; empty values take the entry's own."""

    name: str
    source: Mapping[str, Any] = field(default_factory=dict)
    revision: str = ""
    low_bit: str = ""
    context_length: int = 0
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Target:
    """Where the model has to run. ``memory_bytes`` is 0 if unknown.

    With several GPUs it is the memory of the smallest; ``others`` has the larger ones, each with its memory.
    """

    engine: str
    device: str
    memory_bytes: int = 0
    memory_of: str = ""
    others: Sequence[tuple[str, int]] = ()


@dataclass(frozen=True)
class Catalogue:
    """The data of roles/model/vars: engines, the size of a weight in each format, and the models."""

    engines: Mapping[str, Mapping[str, Any]]
    bits_per_weight: Mapping[str, float]
    models: Mapping[str, Mapping[str, Any]]


def resolve(catalogue: Catalogue, request: ModelRequest, target: Target) -> dict[str, Any]:
    """Return the plan for the model of a node; raises ModelError with one message."""
    entry = _entry(catalogue, request.name)
    engine = catalogue.engines.get(target.engine)
    if engine is None:
        raise ModelError(f"unknown engine {target.engine!r}; known engines: {_names(catalogue.engines)}")
    _check_low_bit(catalogue, request.low_bit, target)
    source = _source(entry, request, engine["formats"], target.engine)
    _check_remote_code(entry, request, source)
    maximum = int(entry["context_length"])
    context = request.context_length or maximum
    if not 0 < context <= maximum:
        raise ModelError(f"model_context_length is {context}: {request.name} takes 1 to {maximum} tokens")
    needed = memory_bytes(catalogue, entry, source, request.low_bit, context)
    if needed and target.memory_bytes and needed > target.memory_bytes:
        fitting = [
            name
            for name in engine["low_bit"].get(target.device, [])
            if 0 < memory_bytes(catalogue, entry, {}, name, context) <= target.memory_bytes
        ]
        raise ModelError(_too_large(request, target, needed, context, fitting))
    return {
        "name": request.name,
        "source": source,
        "formats": list(engine["formats"]),
        "low_bit": request.low_bit,
        "prompt_format": entry.get("prompt_format", "tokenizer"),
        "context_length": context,
        "trust_remote_code": bool(entry.get("remote_code", False)),
        "revision": str(source.get("revision", "")),
        "memory_bytes": needed,
        "low_bit_bytes": weight_bytes(catalogue, entry, request.low_bit) if request.low_bit else 0,
        "licence": entry.get("licence", ""),
    }


def weight_bytes(catalogue: Catalogue, entry: Mapping[str, Any], low_bit: str) -> int:
    """Bytes of the weights in a low-bit format; the embedding table stays at 16 bits. 0 if unknown."""
    parameters = int(entry.get("parameters", 0))
    embedding = int(entry.get("embedding_parameters", 0))
    return int((parameters - embedding) * catalogue.bits_per_weight[low_bit] / 8) + embedding * 2 if parameters else 0


def memory_bytes(
    catalogue: Catalogue, entry: Mapping[str, Any], source: Mapping[str, Any], low_bit: str, context: int
) -> int:
    """Memory for serving in bytes: weights, the KV cache of one full context, and the engine's own. 0 if unknown."""
    weights = weight_bytes(catalogue, entry, low_bit) if low_bit else int(source.get("download_bytes", 0))
    return weights + int(entry.get("kv_bytes_per_token", 0)) * context + RUNTIME_BYTES if weights else 0


def _entry(catalogue: Catalogue, name: str) -> Mapping[str, Any]:
    entry = catalogue.models.get(name)
    if entry is None:
        raise ModelError(
            f"unknown model {name!r}; known models: {_names(catalogue.models)}. Add another transformers model with "
            "model_entries"
        )
    unknown = sorted(set(entry) - _ENTRY_OPTIONS)
    if unknown:
        raise ModelError(
            f"the entry of model {name} has unknown keys {', '.join(unknown)}; it takes {_names(_ENTRY_OPTIONS)}"
        )
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ModelError(f"{name!r} is not a valid model name: use letters, digits, dots, dashes and underscores")
    for key in ("parameters", "embedding_parameters", "kv_bytes_per_token", "context_length"):
        value = entry.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise ModelError(f"the entry of model {name} has {key} {value!r}: set a whole number")
    if not entry.get("context_length"):
        raise ModelError(f"the entry of model {name} lacks context_length: set it, in tokens")
    if entry.get("prompt_format", "tokenizer") not in _PROMPT_FORMATS:
        raise ModelError(
            f"the entry of model {name} has prompt_format {entry['prompt_format']!r}; known formats: "
            f"{_names(_PROMPT_FORMATS)}"
        )
    return entry


def _check_low_bit(catalogue: Catalogue, low_bit: str, target: Target) -> None:
    if low_bit and low_bit not in catalogue.bits_per_weight:
        raise ModelError(f"unknown low-bit format {low_bit!r}; known formats: {_names(catalogue.bits_per_weight)}")
    allowed: Sequence[str] = catalogue.engines[target.engine]["low_bit"].get(target.device, [])
    if low_bit in allowed or (not low_bit and not allowed):
        return
    if not low_bit:
        raise ModelError(
            f"engine {target.engine} needs a low-bit format: set model_low_bit to one of {_names(allowed)}"
        )
    if not allowed:
        raise ModelError(
            f"engine {target.engine} serves a model file as it is and cannot convert it to {low_bit}: set "
            "model_low_bit to ''"
        )
    raise ModelError(
        f"engine {target.engine} refuses low-bit format {low_bit} on the {target.device}; it takes {_names(allowed)}"
    )


def _source(entry: Mapping[str, Any], request: ModelRequest, formats: Sequence[str], engine: str) -> dict[str, Any]:
    """The operator's source, or the entry's first in a format that the engine reads, validated and normalised."""
    chosen: Optional[Mapping[str, Any]] = request.source or None
    where = "model_source"
    if chosen is None:
        sources: Mapping[str, Mapping[str, Any]] = entry.get("sources", {})
        where = f"the entry of model {request.name}"
        chosen = next((sources[name] for name in formats if name in sources), None)
        if chosen is None:
            raise ModelError(
                f"engine {engine} reads {' or '.join(formats)}, and model {request.name} is listed as "
                f"{_names(sources) or 'nothing'}: point model_source at weights of that format, or choose another "
                "model or engine"
            )
    kinds = [kind for kind in SOURCE_KINDS if kind in chosen]
    if len(kinds) != 1:
        raise ModelError(f"{where} needs exactly one of {_names(SOURCE_KINDS)}; it has {_names(chosen) or 'none'}")
    kind = kinds[0]
    unknown = sorted(set(chosen) - _SOURCE_OPTIONS[kind] - {kind})
    if unknown:
        raise ModelError(
            f"{where} has {', '.join(unknown)}, which {kind} does not take; it takes {_names(_SOURCE_OPTIONS[kind])}"
        )
    source: dict[str, Any] = {"kind": kind, "location": chosen[kind], **{k: v for k, v in chosen.items() if k != kind}}
    if not isinstance(source["location"], str) or not source["location"]:
        raise ModelError(f"{where} has {kind} {source['location']!r}: set a string")
    if kind == "huggingface":
        source["revision"] = request.revision or source.get("revision", "") or "main"
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", source["location"]):
            raise ModelError(f"{where} has huggingface {source['location']!r}: write owner/name")
        _check_digests(source, where)
    if kind == "url" and "@" in urlsplit(source["location"]).netloc:
        raise ModelError(
            f"{where} has a url with a user or a password, which would appear in logs: bring the file to the "
            "controller or the node (controller_path, path), or serve it within the site without one"
        )
    if kind in ("url", "wheel") and not re.fullmatch(r"[0-9a-f]{64}", str(source.get("sha256", ""))):
        raise ModelError(f"{where} needs the sha256 (64 hexadecimal digits) of its {kind}")
    if kind == "wheel" and not re.fullmatch(r"[A-Za-z0-9._-]+==[^\s;,*]+", source["location"]):
        raise ModelError(f"{where} has wheel {source['location']!r}: write name==version")
    if kind in ("path", "controller_path") and not source["location"].startswith("/"):
        raise ModelError(f"{where} has {kind} {source['location']!r}: write an absolute path")
    return source


def _check_digests(source: Mapping[str, Any], where: str) -> None:
    """A mirror without digests needs the operator's: for every file that is fetched, of one commit."""
    digests = source.get("sha256", {})
    if not isinstance(digests, dict) or not all(
        re.fullmatch(r"[^/]+", str(name)) and re.fullmatch(r"[0-9a-f]{64}", str(digest))
        for name, digest in digests.items()
    ):
        raise ModelError(f"{where} has an invalid sha256: write {{file: 64 hexadecimal digits}} for each file")
    if digests and not re.fullmatch(r"[0-9a-f]{40}", source["revision"]):
        raise ModelError(
            f"{where} has sha256 for its files: set model_revision to their full commit (40 hexadecimal digits), not "
            f"{source['revision']!r}"
        )


def _check_remote_code(entry: Mapping[str, Any], request: ModelRequest, source: Mapping[str, Any]) -> None:
    if not entry.get("remote_code", False):
        if request.trust_remote_code:
            raise ModelError(
                f"model_trust_remote_code is true, but model {request.name} has no code of its own: set it to false"
            )
        return
    if not request.trust_remote_code:
        raise ModelError(
            f"model {request.name} runs Python code that comes with its weights: read it, pin the commit with "
            "model_revision and set model_trust_remote_code: true"
        )
    if source["kind"] == "huggingface" and not re.fullmatch(r"[0-9a-f]{40}", source["revision"]):
        raise ModelError(
            f"model {request.name} runs Python code that comes with its weights: set model_revision to the full commit "
            f"(40 hexadecimal digits), not {source['revision']!r}"
        )


def _too_large(request: ModelRequest, target: Target, needed: int, context: int, fitting: Sequence[str]) -> str:
    form = f" in {request.low_bit}" if request.low_bit else ""
    message = (
        f"model {request.name}{form} with {context} tokens of context needs {_gib(needed)} of memory and "
        f"{target.memory_of} has {_gib(target.memory_bytes)}"
    )
    roomy = [name for name, memory in target.others if memory >= needed]
    if roomy:
        message = (
            f"{message}, while it fits on {', '.join(roomy)} (inference_instances: {len(roomy)} serves there alone)"
        )
    if fitting:
        return f"{message}: set model_low_bit to {_names(fitting)}"
    return f"{message}: choose a smaller model, or a shorter model_context_length"


def _gib(count: int) -> str:
    return f"{count / 1024**3:.1f} GiB"


def _names(values: Any) -> str:
    return ", ".join(sorted(str(value) or "''" for value in values))
