"""What a directory of model weights holds: the one form it is in, and the files that belong to it."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

# Formats that run code when they are opened.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_TOKENIZER = ("*.json", "*.jinja", "tokenizer.model", "spiece.model", "vocab.txt", "merges.txt")
_LEGAL = ("LICENSE*", "USE_POLICY*", "NOTICE*", "MODEL_LICENSE*")


class WeightsError(FleetError):
    """The weights cannot be used; the message says why and what can be done."""


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _openvino_pairs(names: Iterable[str]) -> list[str]:
    """The .xml files of OpenVINO models and the .bin files of raw tensors that belong to them."""
    known = set(names)
    pairs = [name for name in known if name.endswith(".xml") and f"{name[:-4]}.bin" in known]
    return sorted(pairs + [f"{name[:-4]}.bin" for name in pairs])


def choose(
    names: Iterable[str],
    formats: Sequence[str],
    *,
    where: str,
    wanted_files: Sequence[str] = (),
    code: bool = False,
) -> tuple[str, list[str]]:
    """Return the format and the files to take of the NAMES found in a directory or repository.

    Only files directly in it count. FORMATS are those the engine reads, best first; WANTED_FILES narrows weights down;
    CODE takes Python files too. Raises WeightsError, naming WHERE.
    """
    top = sorted(name for name in names if "/" not in name)
    if wanted_files:
        absent = [name for name in wanted_files if name not in top]
        if absent:
            raise WeightsError(f"{where} has no {', '.join(absent)}; it has {', '.join(top) or 'nothing'}")
    found: dict[str, list[str]] = {
        "gguf": [name for name in top if name.lower().endswith(".gguf")],
        "openvino": _openvino_pairs(top),
        "safetensors": _safetensors(top),
    }
    narrowed = {
        form: [name for name in files if not wanted_files or name in wanted_files] for form, files in found.items()
    }
    for form in formats:
        weights = narrowed[form]
        if not weights:
            continue
        if form == "gguf" and len(weights) > 1:
            raise WeightsError(
                f"{where} has {len(weights)} GGUF files ({', '.join(weights)}): name one with 'file' in model_source"
            )
        if form == "safetensors" and "config.json" not in top:
            raise WeightsError(f"{where} has safetensors but no config.json: it is not a complete transformers model")
        extras = _LEGAL if form == "gguf" else (*_TOKENIZER, *_LEGAL, *(("*.py",) if code else ()))
        return form, sorted({*weights, *_matching(top, extras)})
    others = [form for form, weights in found.items() if weights]
    pickles = [name for name in top if PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES]
    if others:
        raise WeightsError(f"{where} holds {' and '.join(others)} weights, and the engine reads {' or '.join(formats)}")
    if pickles:
        raise WeightsError(
            f"{where} holds pickle weights only ({', '.join(pickles[:3])}), which can run code when they are opened: "
            "use safetensors or GGUF"
        )
    raise WeightsError(
        f"{where} holds no weights: {' or '.join(formats)} are needed; it has {', '.join(top[:10]) or 'nothing'}"
    )


def _safetensors(names: Iterable[str]) -> list[str]:
    """Sharded or single safetensors files; the second copy in some repositories ("consolidated") is left out."""
    files = [name for name in names if name.endswith(".safetensors")]
    return [name for name in files if not name.startswith("consolidated")] or files


def entry_point(form: str, directory: str, files: Mapping[str, object] | Sequence[str]) -> str:
    """The path that the service opens: the GGUF file itself, or the directory."""
    if form != "gguf":
        return directory
    return f"{directory}/{next(name for name in files if name.lower().endswith('.gguf'))}"
