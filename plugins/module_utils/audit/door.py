"""Validate what nodes return to an audit, so that all other code can rely on its shape.

A node may be broken or hostile: its data never raises an error here, and malformed data never counts as in order.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import (
    DRIFT,
    MISSING,
    NOT_APPLICABLE,
    NOT_LOOKED_AT,
    OK,
)
from ansible_collections.xpu.fleet.plugins.module_utils.plain import one_line, plain
from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import kind

STATUSES = (OK, DRIFT, MISSING, NOT_APPLICABLE, NOT_LOOKED_AT)
#: Fields of a GPU that the audit shows, beside its memory.
CARD = ("name", "id", "address", "driver", "driver_version")
MEMORY = "memory_bytes"
#: Limits: the longest text, and the most findings, versions or GPUs of one layer.
LONGEST, MOST = 4000, 2000
_REASON = 1000
#: Numbers of a node are counts, bytes and seconds.
_LARGEST = 2**63


class Malformed(Exception):
    """A node returned malformed data; the message says what is wrong."""


def admitted_layers(
    found: Any, names: Sequence[str], asked: Optional[Iterable[str]] = None
) -> dict[str, dict[str, Any]]:
    """Return the validated layers of a node, by ``names``.

    A malformed layer counts as not checked, with the reason. Every layer of ``asked`` is in the result.
    """
    layers = found if isinstance(found, Mapping) else {}
    wanted = [name for name in names if name in (layers if asked is None else set(asked))]
    return {name: _layer(layers[name]) if name in layers else _not_looked_at("it is missing") for name in wanted}


def admitted_node(found: Any, names: Sequence[str]) -> dict[str, Any]:
    """Return the validated audit of a node: ``reached``, ``reason``, ``stack``, ``cards``, ``layers`` and the like."""
    strange = [] if isinstance(found, Mapping) else [f"it is {kind(found)}"]
    node: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    layers = node.get("layers", {})
    if not isinstance(layers, Mapping):
        strange.append(f"its layers are {kind(layers)}")
    else:
        unknown = [one_line(name, 40) for name in layers if name not in names]
        strange += [f"it has a layer {name}" for name in unknown[:3]]
    gpus, cards = node.get("gpus", []), node.get("cards", [])
    reason = plain(node.get("reason") or "", longest=_REASON)
    return {
        "reached": node.get("reached", True) is not False,
        "reason": "; ".join(filter(None, [reason, *([_malformed(", ".join(strange))] if strange else [])])),
        **{key: one_line(node.get(key) or "", 100) for key in ("stack", "engine", "system", "kernel")},
        "gpus": [one_line(name) for name in gpus[:MOST]] if isinstance(gpus, list) else [],
        "cards": [_card(card) for card in cards[:MOST] if isinstance(card, Mapping)] if isinstance(cards, list) else [],
        "layers": admitted_layers(layers, names),
        "malformed": bool(strange),
    }


def _layer(found: Any) -> dict[str, Any]:
    try:
        return _checked(found)
    except Malformed as error:
        return _not_looked_at(str(error))


def _checked(found: Any) -> dict[str, Any]:
    """Validate one layer. Raises Malformed."""
    if not isinstance(found, Mapping):
        raise Malformed(f"it is {kind(found)}")
    status = found.get("status")
    if not isinstance(status, str) or status not in STATUSES:
        raise Malformed(f"its status is {one_line(status, 40) if isinstance(status, str) else kind(status)}")
    layer = {
        "status": str(status),
        "reason": plain(_typed(found, "reason", str, ""), longest=_REASON),
        "findings": _entries(found, "findings", ("what", "expected", "found")),
        "unseen": _entries(found, "unseen", ("what", "why")),
        "looked_at": int(_number(found, "looked_at", (int,))),
        "versions": _versions(found),
        "notes": _notes(found),
    }
    if "seconds" in found:
        layer["seconds"] = float(_number(found, "seconds", (int, float)))
    if status == OK and (layer["findings"] or layer["unseen"] or found.get("looked_at") == 0):
        raise Malformed("its status is ok, but its findings are not")
    if status == NOT_APPLICABLE and (layer["findings"] or layer["unseen"]):
        raise Malformed("it does not apply, but has findings")
    return layer


def _entries(found: Mapping[str, Any], key: str, fields: tuple[str, ...]) -> list[dict[str, str]]:
    entries = _typed(found, key, list, [])
    if len(entries) > MOST:
        raise Malformed(f"it has {len(entries)} {key}")
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise Malformed(f"one of its {key} is {kind(entry)}")
        wrong = [field for field in fields if not isinstance(entry.get(field), str)]
        if wrong:
            raise Malformed(f"{wrong[0]} of one of its {key} is {kind(entry.get(wrong[0]))}")
    return [{field: plain(entry[field], longest=LONGEST) for field in fields} for entry in entries]


def _notes(found: Mapping[str, Any]) -> list[str]:
    notes = _typed(found, "notes", list, [])
    if len(notes) > MOST or not all(isinstance(note, str) for note in notes):
        raise Malformed("its notes are not a list of strings")
    return [plain(note, longest=LONGEST) for note in notes]


def _versions(found: Mapping[str, Any]) -> dict[str, str]:
    versions = _typed(found, "versions", Mapping, {})
    if len(versions) > MOST:
        raise Malformed(f"it has {len(versions)} versions")
    for name, version in versions.items():
        if not isinstance(name, str) or not isinstance(version, str):
            raise Malformed(f"the version of one of its packages is {kind(version)}")
    return {one_line(name): one_line(version) for name, version in versions.items()}


def _number(found: Mapping[str, Any], key: str, types: tuple[type, ...]) -> float:
    number = _typed(found, key, types, 0)
    if isinstance(number, bool) or not 0 <= number < _LARGEST:  # nor is NaN
        raise Malformed(f"its {key} is a number out of range")
    return float(number)


def _typed(found: Mapping[str, Any], key: str, type_: Any, default: Any) -> Any:
    value = found.get(key, default)
    if not isinstance(value, type_):
        raise Malformed(f"its {key} is {kind(value)}")
    return value


def _card(card: Mapping[str, Any]) -> dict[str, Any]:
    told = {key: one_line(card[key]) if isinstance(card.get(key), str) else "" for key in CARD}
    memory = card.get(MEMORY)
    return {**told, MEMORY: memory if isinstance(memory, int) and 0 <= memory < _LARGEST else 0}


def _not_looked_at(why: str) -> dict[str, Any]:
    empty: dict[str, Any] = {"findings": [], "unseen": [], "looked_at": 0, "versions": {}, "notes": [], "seconds": 0.0}
    return {"status": NOT_LOOKED_AT, "reason": _malformed(why), **empty}


def _malformed(why: str) -> str:
    return f"the node's answer is malformed: {why}"


def is_name(text: str) -> bool:
    """Tell whether this can be a name in a table: nothing in it looks like another column."""
    return bool(re.fullmatch(r"[\w.+-]{1,60}", text, re.ASCII))
