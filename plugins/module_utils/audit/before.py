"""Earlier audits: changes since then, and the number of faulty layers at each time."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import (
    DRIFT,
    MISSING,
    NOT_APPLICABLE,
    NOT_LOOKED_AT,
    OK,
)
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

TIME = "%Y-%m-%dT%H:%M:%SZ"
#: How a layer changed since the newest earlier audit.
SAME = "same"
DRIFTED = "drifted"
REPAIRED = "repaired"
UNSEEN = "no longer checked"
OTHER = "other"
_STATUSES = {OK, DRIFT, MISSING, NOT_APPLICABLE, NOT_LOOKED_AT}
#: Drift and missing are one state here: both are faults.
_KINDS = {MISSING: DRIFT}


class EarlierError(FleetError):
    """An earlier report cannot be used; the message names the file and says why."""


def earlier_paths(wanted: Iterable[str]) -> list[Path]:
    """Return the files for paths and globs. A glob may match none: there is a first audit. Raises EarlierError."""
    paths: set[Path] = set()
    for name in wanted:
        place = str(Path(name).expanduser().absolute())
        if glob.has_magic(place) and not Path(place).exists():
            paths.update(Path("/").glob(place.lstrip("/")))
        elif not Path(place).exists():
            raise EarlierError(f"No earlier report at {place}.")
        else:
            paths.add(Path(place))
    return sorted(paths)


def read_earlier(path: Path) -> dict[str, Any]:
    """Return the time of a report and the status of each layer of each node. Raises EarlierError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EarlierError(f"The earlier report {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise EarlierError(f"The earlier report {path} is not JSON: {error}.") from error
    try:
        time = datetime.strptime(data["time"], TIME).replace(tzinfo=timezone.utc)
        nodes = {
            str(host): {str(name): _status(layer["status"]) for name, layer in node["layers"].items()}
            for host, node in data["nodes"].items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise EarlierError(
            f"{path} is not a report of an earlier audit: name a file that xpu_audit_json wrote."
        ) from error
    return {"time": time.strftime(TIME), "nodes": nodes}


def _status(word: Any) -> str:
    if word not in _STATUSES:
        raise ValueError(word)
    return str(word)


def trend(report: Mapping[str, Any], earlier: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the changes since the newest earlier audit (``since``, "" without one) and a ``history`` up to now.

    ``changes`` has, for each layer of each node, ``change``, ``was`` (its earlier status) and, if it is the same,
    ``since``: the first of the consecutive audits with that status. Audits without a node do not count for it.
    ``gone`` are nodes of the newest earlier audit that are neither in this one nor excluded by ``--limit``.
    """
    before = sorted(earlier, key=lambda entry: entry["time"])
    now = {
        host: {name: layer["status"] for name, layer in node["layers"].items()}
        for host, node in report["nodes"].items()
    }
    newest = before[-1] if before else {"time": "", "nodes": {}}
    history = [*before, {"time": report["time"], "nodes": now}]
    return {
        "since": newest["time"],
        "changes": {host: _changes(host, layers, before) for host, layers in now.items()},
        "gone": sorted(set(newest["nodes"]) - set(now) - set(report.get("left_out", ()))),
        "history": [{"time": entry["time"], **_counts(entry["nodes"])} for entry in history],
    }


def _changes(host: str, layers: Mapping[str, str], before: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    known = [entry for entry in before if host in entry["nodes"]]
    if not known:
        return {}
    return {
        name: _change(
            layers.get(name, NOT_LOOKED_AT),
            [(entry["time"], entry["nodes"][host].get(name, NOT_LOOKED_AT)) for entry in known],
        )
        for name in NAMES
    }


def _change(status: str, past: Sequence[tuple[str, str]]) -> dict[str, str]:
    kind, was = _kind(status), past[-1][1]
    if kind == _kind(was):
        return {"change": SAME, "was": was, "since": _since(kind, past)}
    if NOT_LOOKED_AT in (status, was):
        return {"change": UNSEEN if status == NOT_LOOKED_AT else OTHER, "was": was, "since": ""}
    change = DRIFTED if kind == DRIFT else REPAIRED if _kind(was) == DRIFT and status == OK else OTHER
    return {"change": change, "was": was, "since": ""}


def _since(kind: str, past: Sequence[tuple[str, str]]) -> str:
    since = ""
    for time, status in reversed(past):
        if _kind(status) != kind:
            break
        since = time
    return since


def _kind(status: str) -> str:
    return _KINDS.get(status, status)


def _counts(nodes: Mapping[str, Mapping[str, str]]) -> dict[str, int]:
    """Count layers by status; no layer of an unreached node was checked."""
    states = [_kind(layers.get(name, NOT_LOOKED_AT)) for layers in nodes.values() for name in NAMES]
    return {
        "nodes": len(nodes),
        "layers": sum(state != NOT_APPLICABLE for state in states),
        "drift": states.count(DRIFT),
        "not_looked_at": states.count(NOT_LOOKED_AT),
    }
