"""The plan of site.yml for every node of an audited fleet, and one exit status for all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.due import due_layers, reasons
from ansible_collections.xpu.fleet.plugins.module_utils.audit.fleet import EXIT
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import DRIFT, NOT_LOOKED_AT, OK
from ansible_collections.xpu.fleet.plugins.module_utils.layers import ROLES


def roles_of(layers: Iterable[str]) -> list[str]:
    """Return the roles of these layers."""
    return [ROLES[layer] for layer in layers if layer in ROLES]


def fleet_plan(report: Mapping[str, Any], chosen: Iterable[str], force: bool = False) -> dict[str, Any]:
    """Return ``exit``, the ``nodes`` with their ``roles`` and the ``reasons``, and all of it as ``lines``.

    Nodes and layers that were not checked are named; with any of them, ``exit`` is that of unknown.
    """
    layers = list(chosen)
    nodes = {host: _node(node, layers, force) for host, node in report["nodes"].items()}
    unknown = report["status"] == NOT_LOOKED_AT
    status = NOT_LOOKED_AT if unknown else DRIFT if any(node["reasons"] for node in nodes.values()) else OK
    return {
        "time": report.get("time", ""),
        "exit": EXIT[status],
        "nodes": nodes,
        "left_out": list(report.get("left_out", ())),
        "lines": [f"{host}: {line}" for host, node in nodes.items() for line in node["lines"]],
    }


def _node(node: Mapping[str, Any], chosen: list[str], force: bool) -> dict[str, Any]:
    found = node["layers"]
    if not found:
        return {"looked_at": False, "roles": [], "reasons": {}, "lines": ["not looked at"]}
    due = due_layers({} if force else found, chosen)
    why = {layer: line.partition(": ")[2] for layer, line in zip(due, reasons(found, due))}
    lines = [f"{ROLES.get(layer, layer)}: {reason}" for layer, reason in why.items()]
    return {
        "looked_at": True,
        "roles": roles_of(due),
        "reasons": why,
        "lines": lines,
    }
