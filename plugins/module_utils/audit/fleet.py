"""The audit of a fleet: nodes by layers as a table, and one exit status for all of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.audits import (
    summary,
)
from ansible_collections.xpu.fleet.plugins.module_utils.audit.door import admitted_node, is_name
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import (
    DRIFT,
    MISSING,
    NOT_APPLICABLE,
    NOT_LOOKED_AT,
    OK,
    lines,
)
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.module_utils.plain import one_line

#: Status words of a layer in the table; colours do not reach logs.
_WORDS = {OK: "ok", DRIFT: "DRIFT", MISSING: "MISSING", NOT_APPLICABLE: "-", NOT_LOOKED_AT: "?"}
#: Exit statuses: all in order; something drifted; something was not checked (and no drift is known).
EXIT = {OK: 0, DRIFT: 1, NOT_LOOKED_AT: 2}
#: The longest line about a node.
_LONGEST = 1200


def fleet_report(audits: Mapping[str, Any], hosts: Iterable[str], left_out: Iterable[str] = ()) -> dict[str, Any]:
    """Return the state of all hosts: ``status``, ``exit``, ``nodes`` as plain data, and the lines of a ``table``.

    Hosts without an audit were not reached. Hosts that ``--limit`` excludes are named and do not count.
    If one node drifts and another was not reached, the exit status is 2 (unknown): an operator has to look at that
    first.
    """
    nodes = {host: _node(audits.get(host)) for host in hosts}
    states = {node["status"] for node in nodes.values()}
    status = NOT_LOOKED_AT if NOT_LOOKED_AT in states or not states else DRIFT if DRIFT in states else OK
    others = list(left_out)
    table = [*_table(nodes), *_details(nodes), *([f"left out by --limit: {', '.join(others)}"] if others else [])]
    return {"status": status, "exit": EXIT[status], "nodes": nodes, "left_out": others, "table": table}


def _node(found: Any) -> dict[str, Any]:
    """Return the table's data of one node. A malformed answer is never in order."""
    node = admitted_node({"reached": False, "reason": "not reached"} if found is None else found, NAMES)
    malformed, status = node.pop("malformed"), summary(node["layers"])
    return {"status": NOT_LOOKED_AT if malformed and status == OK else status, **node}


def _table(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a table of nodes by layers; each column is as wide as its longest word."""
    rows = [["node", "stack", *NAMES]]
    for host, node in nodes.items():
        words = [_WORDS[node["layers"].get(layer, {"status": NOT_LOOKED_AT})["status"]] for layer in NAMES]
        rows.append([host, node["stack"] if is_name(node["stack"]) else "?", *words])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(word.ljust(width) for word, width in zip(row, widths)).rstrip() for row in rows]


def _details(nodes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each difference, unchecked item and warning."""
    details = []
    for host, node in nodes.items():
        if node["reason"]:
            details.append(f"{host}: {one_line(node['reason'], _LONGEST)}")
        for name, layer in node["layers"].items():
            details += [f"{host}: {name}: {line}" for line in lines(layer)]
            details += [f"{host}: {name}: note: {note}" for note in layer.get("notes", ())]
            if layer["status"] == NOT_LOOKED_AT and layer["reason"]:
                details.append(f"{host}: {name}: not looked at, {one_line(layer['reason'])}")
    return details
