"""A node's answer to module gpu_info, validated, in plain text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpu_ids import INTEGRATED, OTHER, UNKNOWN, USED
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpus import Gpu
from ansible_collections.xpu.fleet.plugins.module_utils.plain import one_line, plain_data
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError
from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import kind

#: An unknown GPU: every key, with a value of its type.
_SHAPE = Gpu("", "", "", "", "", "", 0).as_dict()
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]")
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_SYSTEM = ("distribution", "release", "codename", "kernel", "architecture")


class AnswerError(FleetError):
    """A node's answer is malformed; the message says where."""


def admitted_gpus(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validated data that module gpu_info documents. Raises AnswerError."""
    chosen = (*USED, UNKNOWN)
    gpus, lent = ([_gpu(gpu, chosen) for gpu in _list(found, key)] for key in ("gpus", "lent"))
    others = [_gpu(gpu, (*chosen, INTEGRATED, OTHER)) for gpu in _list(found, "others")]
    system = found.get("system")
    if not isinstance(system, Mapping):
        raise AnswerError(f"system is {kind(system)}")
    return {
        "gpus": gpus,
        "lent": lent,
        "others": others,
        "families": sorted({gpu["family"] for gpu in gpus}),
        "served": [_matching(_ADDRESS, address, "an address of served") for address in _list(found, "served")],
        **{key: _of_type(found.get(key), bool, key) for key in ("container", "secure_boot")},
        "system": {key: one_line(_of_type(system.get(key), str, f"system.{key}"), 100) for key in _SYSTEM},
    }


def _gpu(gpu: Any, families: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(gpu, Mapping):
        raise AnswerError(f"a GPU is {kind(gpu)}")
    _matching(_ADDRESS, gpu.get("address"), "the address of a GPU")
    _matching(_ID, gpu.get("id"), "the id of a GPU")
    if gpu.get("family") not in families:
        raise AnswerError("a GPU has an unknown family")
    return {key: _value(key, gpu.get(key, empty), empty) for key, empty in _SHAPE.items()}


def _value(key: str, value: Any, empty: Any) -> Any:
    """Return a GPU's value of the type of ``empty``; links and modules may be missing."""
    if empty is None:
        return plain_data(value) if isinstance(value, (Mapping, list)) else None
    of_type = _of_type(value, type(empty), f"{key} of a GPU")
    return one_line(of_type) if isinstance(of_type, str) else plain_data(of_type)


def _matching(pattern: re.Pattern[str], value: Any, what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise AnswerError(f"{what} is {one_line(value, 40) if isinstance(value, str) else kind(value)}")
    return str(value)


def _list(found: Mapping[str, Any], key: str) -> list[Any]:
    value: list[Any] = _of_type(found.get(key), list, key)
    if len(value) > 1000:
        raise AnswerError(f"{key} has {len(value)} entries")
    return value


def _of_type(value: Any, wanted: type, what: str) -> Any:
    if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
        raise AnswerError(f"{what} is {kind(value)}")
    return value
