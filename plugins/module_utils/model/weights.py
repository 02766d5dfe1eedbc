"""The content of a directory of model weights: its one format, and the files that belong to it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from ansible_collections.xpu.fleet.plugins.module_utils.model.formats import INDEX, WHOLE, part_name
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

# Formats that run code when opened.
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# Files beside weights that are neither tokenizer nor settings. Tokenizers have many names (tokenizer.model,
# sentencepiece.bpe.model, qwen.tiktoken, tekken.json, vocab.txt, ...), so the list is of files to ignore.
_NO_PART = (
    *(f"*{suffix}" for suffix in PICKLE_SUFFIXES),
    *("*.safetensors", "*.gguf*", "*.ggml*", "*.h5", "*.msgpack", "*.ot", "*.onnx*", "*.tflite", "*.npy", "*.npz"),
    *("*.xml", "*.mlmodel", "*.nemo", "*.llamafile", "*.engine", "*.plan", "*.dat", "*.imatrix", "*.index"),
    *("*.md", "*.rst", "*.pdf", "*.png", "*.jpg", "*.jpeg", "*.gif", "*.svg", "*.webp", "*.mp3", "*.mp4", "*.wav"),
    *(
        "*.html",
        "*.css",
        "*.js",
        "*.ipynb",
        "*.sh",
        "*.so",
        "*.exe",
        "*.whl",
        "*.zip",
        "*.tar",
        "*.gz",
        "*.tgz",
        "*.7z",
    ),
    *("*.csv", "*.tsv", "*.parquet", "*.arrow", "*.log", "*.part", "*.py", "*.pyc", "*.bin.index.json"),
    *("requirements*.txt", "readme*", "adapter_*", "params.json"),
)
_WEIGHTS = (".gguf", ".safetensors")
_LEGAL = ("LICENSE*", "USE_POLICY*", "NOTICE*", "MODEL_LICENSE*")
#: A file split by split or a script, not by llama.cpp's gguf-split.
_CUT = re.compile(r"(?i).+\.gguf([-.](split|part)[-.]?\w+|\.?\d{2,5}|\.?a[a-z]|part\d+of\d+)")


class WeightsChoiceError(FleetError):
    """The weights cannot be used; the message says why and what helps."""


def _matching(names: Iterable[str], patterns: Sequence[str]) -> list[str]:
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]


def _companions(names: Iterable[str], *, code: bool) -> list[str]:
    """Files that belong to a model beside its weights: settings, tokenizer, licence, and its code on request."""
    allowed = [name for name in names if not _matching([name.lower()], _NO_PART)]
    return allowed + ([name for name in names if name.endswith(".py")] if code else [])


def _openvino_pairs(names: Iterable[str]) -> list[str]:
    """The .xml files of OpenVINO models and the .bin files of raw tensors that belong to them."""
    known = set(names)
    pairs = [name for name in known if name.endswith(".xml") and f"{name[:-4]}.bin" in known]
    return sorted(pairs + [f"{name[:-4]}.bin" for name in pairs])


def _sets(names: Iterable[str]) -> list[list[str]]:
    """Group files by model: all names of a model's parts, present or not."""
    groups: dict[str, list[str]] = {}
    for name in names:
        part = part_name(name)
        groups.setdefault(part.siblings[0] if part else name, part.siblings if part else [name])
    return list(groups.values())


def choose(
    names: Iterable[str],
    formats: Sequence[str],
    *,
    where: str,
    wanted_files: Sequence[str] = (),
    code: bool = False,
) -> tuple[str, list[str]]:
    """Return the format and the files to take from the NAMES in a directory or repository.

    Only files directly in it count. FORMATS are those the engine reads, best first; WANTED_FILES selects weights,
    and any part of a split model stands for all of it; CODE takes Python files too. Raises WeightsError, naming WHERE.
    """
    seen = sorted(name for name in names if not name.startswith(".") and name.isprintable())
    top = [name for name in seen if "/" not in name]
    absent = [name for name in wanted_files if name not in top]
    deeper = [name for name in absent or seen if "/" in name and name in seen and name.lower().endswith(_WEIGHTS)]
    folders = (
        f"in folders ({', '.join(deeper[:3])}), which are not read: copy the files of one folder to the node and set "
        "model_source.path to it, or choose another repository"
    )
    if absent and deeper:
        raise WeightsChoiceError(f"{where} has the files that 'file' names {folders}")
    if absent:
        raise WeightsChoiceError(f"{where} has no {', '.join(absent)}; it has {', '.join(top) or 'nothing'}")
    wanted = {name for files in _sets(wanted_files) for name in files}
    found = {
        "gguf": [name for name in top if re.search(r"(?i)\.gguf$", name) and not name.lower().startswith("mmproj")],
        "openvino": _openvino_pairs(top),
        "safetensors": [name for name in top if name.endswith(".safetensors") and not _is_extra(name)],
    }
    for form in formats:
        weights = [name for name in found.get(form, []) if not wanted or name in wanted]
        if not weights:
            continue
        if form != "openvino":
            weights = _one_set(form, weights, top, where, narrowed=bool(wanted))
        if form == "safetensors" and "config.json" not in top:
            raise WeightsChoiceError(
                f"{where} has safetensors but no config.json: it is not a complete transformers model"
            )
        extras = _matching(top, _LEGAL) if form == "gguf" else _companions(top, code=code)
        return form, sorted({*weights, *extras})
    if wanted and any(found.get(form) for form in formats):
        raise WeightsChoiceError(
            f"{', '.join(wanted_files)} of {where} is no {' or '.join(formats)} file for this engine: choose another "
            "with 'file' in model_source"
        )
    if deeper and not any(found.values()):
        raise WeightsChoiceError(f"{where} holds weights only {folders}")
    raise WeightsChoiceError(_nothing(top, found, formats, where))


def _is_extra(name: str) -> bool:
    """Whether a safetensors file is no model for transformers: a second copy in Mistral's form, or an adapter."""
    return name.startswith(("consolidated", "adapter_"))


def _one_set(form: str, weights: Sequence[str], top: Sequence[str], where: str, *, narrowed: bool) -> list[str]:
    """The files of the one model among WEIGHTS, every part of it. Raises WeightsError."""
    sets = _sets(weights)
    if form == "safetensors" and len(sets) > 1 and not narrowed:
        sets = _usual_set(sets, top)
    if len(sets) > 1 and (form == "gguf" or any(len(files) > 1 for files in sets)):
        shown = ", ".join(files[0] for files in sets)
        kind = "GGUF files" if form == "gguf" else "safetensors models"
        raise WeightsChoiceError(f"{where} has {len(sets)} {kind} ({shown}): choose one with 'file' in model_source")
    files = [name for group in sets for name in group]
    missing = [name for name in files if name not in top]
    if missing:
        raise WeightsChoiceError(lacks(where, missing, f"{len(files)} parts of its weights"))
    return files


def lacks(where: str, missing: Sequence[str], of_what: str) -> str:
    """Say that files are missing, the first of them by name."""
    names = f"{', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}"
    return f"{where} lacks {names} of the {of_what}: copy the complete model again"


def _usual_set(sets: list[list[str]], top: Sequence[str]) -> list[list[str]]:
    """Of several sets of safetensors, the one that transformers opens; all if none has its usual name."""
    usual = [files for files in sets if files == [WHOLE] or re.match(r"model-\d+-of-", files[0])]
    # Parts of another copy do not matter beside a whole one.
    usual = [files for files in usual if set(files) <= set(top)] or usual
    # With an index, the shards it names count; without one, the single file does.
    usual.sort(key=lambda files: (len(files) > 1) != (INDEX in top))
    return usual[:1] or sets


def _nothing(top: Sequence[str], found: Mapping[str, Sequence[str]], formats: Sequence[str], where: str) -> str:
    """Why there are no weights to take, and what the directory has instead."""
    others = [form for form, weights in found.items() if weights]
    pickles = [name for name in top if PurePosixPath(name).suffix.lower() in PICKLE_SUFFIXES]
    cut = [name for name in top if _CUT.fullmatch(name)]
    halves = [name for name in top if name.endswith(".xml") and "model" in name and "openvino" in formats]
    wanted = " or ".join(formats)
    table: tuple[tuple[object, str], ...] = (
        (others, f"holds {' and '.join(others)} weights, and the engine reads {wanted}"),
        (
            _matching(top, ("adapter_*",)),
            "holds an adapter (LoRA), not a complete model: merge it into its base model (merge_and_unload in peft) "
            "and use the result",
        ),
        (
            cut,
            f"holds a GGUF file that was split ({', '.join(cut[:3])}): join them with cat, in order, and use the "
            "joined file",
        ),
        (
            _matching(top, ("consolidated*",)),
            "holds weights in Mistral's own form only (consolidated.*): use a repository with transformers weights "
            "(model.safetensors)",
        ),
        (halves, f"has {', '.join(halves)} without the .bin file beside it: copy the complete OpenVINO model again"),
        (
            pickles,
            f"holds pickle weights only ({', '.join(pickles[:3])}), which can run code when opened: use safetensors or "
            "GGUF",
        ),
        (True, f"holds no weights: {wanted} are needed; it has {', '.join(top[:10]) or 'nothing'}"),
    )
    return f"{where} {next(text for holds, text in table if holds)}"


def entry_point(form: str, directory: str, files: Mapping[str, object] | Sequence[str]) -> str:
    """The path that the service opens: the GGUF file itself (the first of its parts), or the directory."""
    if form != "gguf":
        return directory
    return f"{directory}/{min(name for name in files if name.lower().endswith('.gguf'))}"
