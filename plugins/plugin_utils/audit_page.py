"""The audit as one self-contained HTML page: no script, no other file, no network."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.audit.before import (
    DRIFTED,
    REPAIRED,
    SAME,
    TIME,
    UNSEEN,
)
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
from jinja2 import Environment, StrictUndefined

#: Status words of a layer on the page; a colour only repeats them.
WORDS = {
    OK: "ok",
    DRIFT: "drift",
    MISSING: "missing",
    NOT_APPLICABLE: "not needed",
    NOT_LOOKED_AT: "not looked at",
    "not_reached": "not reached",
    "not_asked": "not asked for",
}
#: Status words of the fleet.
_VERDICTS = {OK: "All is in order", DRIFT: "Some nodes have drifted", NOT_LOOKED_AT: "Some checks could not run"}
#: The most audits in the history, newest last.
_SHOWN = 40
_HEIGHT = 100


def page(report: Mapping[str, Any], changed: Optional[Mapping[str, Any]] = None) -> str:
    """Return the page of a report; ``changed`` is the result of ``trend``, if there are earlier ones."""
    changes = changed["changes"] if changed else {}
    nodes = [
        _node(number, host, node, changes.get(host, {})) for number, (host, node) in enumerate(report["nodes"].items())
    ]
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    environment.filters["time"] = _time
    template = Path(__file__).with_name("audit_page.html.j2").read_text(encoding="utf-8")
    text = environment.from_string(template).render(
        time=report["time"],
        status=report["status"],
        verdict=_VERDICTS[report["status"]],
        counts=_counts(nodes, report.get("left_out", ())),
        left_out=report.get("left_out", ()),
        names=NAMES,
        words=WORDS,
        nodes=nodes,
        trend=_trend(nodes, changed) if changed and changed["since"] else None,
    )
    # A node's data may not be text at all.
    return text.encode("utf-8", "replace").decode("utf-8") + "\n"


def _node(number: int, host: str, node: Mapping[str, Any], changes: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    absent = "not_reached" if not node["reached"] else NOT_LOOKED_AT if node["reason"] else "not_asked"
    return {
        **node,
        "id": f"node-{number + 1}",
        "name": host,
        "seen": bool(node["layers"]),
        "state": node["status"] if node["reached"] else "not_reached",
        "layers": [_layer(name, node["layers"].get(name, {"status": absent}), changes.get(name, {})) for name in NAMES],
        "cards": [{**card, "memory": _memory(card.get("memory_bytes", 0))} for card in node["cards"]],
    }


def _layer(name: str, layer: Mapping[str, Any], change: Mapping[str, str]) -> dict[str, Any]:
    empty: dict[str, Any] = {"reason": "", "findings": [], "unseen": [], "looked_at": 0, "versions": {}, "notes": []}
    return {**empty, **layer, "name": name, "change": dict(change), "said": _said(layer["status"], change)}


def _said(status: str, change: Mapping[str, str]) -> str:
    """Return a layer's change in words, "" if it is not worth mentioning."""
    kind = change.get("change")
    if kind == SAME:
        return f"since {_time(change['since'])} or longer" if status in (DRIFT, MISSING, NOT_LOOKED_AT) else ""
    if kind in (DRIFTED, REPAIRED):
        return f"{'newly drifted' if kind == DRIFTED else 'repaired'}: was {WORDS[change['was']]}"
    return f"was {WORDS[change['was']]}" if kind else ""


def _counts(nodes: list[dict[str, Any]], left_out: Any) -> list[dict[str, Any]]:
    states = [node["state"] for node in nodes]
    named = [
        (OK, "in order"),
        (DRIFT, "drifted"),
        (NOT_LOOKED_AT, "partly checked"),
        ("not_reached", "not reached"),
    ]
    counted = [{"state": state, "number": states.count(state), "what": what} for state, what in named]
    return [*counted, {"state": "not_asked", "number": len(left_out), "what": "left out by --limit"}]


def _trend(nodes: list[dict[str, Any]], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the page's part about earlier audits, with the bars of the history in pixels."""
    lists: dict[str, list[dict[str, Any]]] = {DRIFTED: [], REPAIRED: [], UNSEEN: []}
    for node in nodes:
        if not node["seen"]:
            if any(layer["change"].get("change") == UNSEEN for layer in node["layers"]):
                lists[UNSEEN].append({"node": node, "layer": None})
            continue
        for layer in node["layers"]:
            if layer["change"].get("change") in lists:
                lists[layer["change"]["change"]].append({"node": node, "layer": layer})
    shown = changed["history"][-_SHOWN:]
    most = max([1, *(entry["drift"] + entry["not_looked_at"] for entry in shown)])
    bars = [
        {
            **entry,
            "x": index * 16,
            "drift_height": round(_HEIGHT * entry["drift"] / most, 1),
            "unseen_height": round(_HEIGHT * entry["not_looked_at"] / most, 1),
        }
        for index, entry in enumerate(shown)
    ]
    return {
        "since": changed["since"],
        "gone": changed["gone"],
        "new": [node for node in nodes if not any(layer["change"] for layer in node["layers"])],
        "drifted": lists[DRIFTED],
        "repaired": lists[REPAIRED],
        "unseen": lists[UNSEEN],
        "bars": bars,
        "most": most,
        "height": _HEIGHT,
        "earlier": len(changed["history"]) - 1,
    }


def _memory(size: Any) -> str:
    return f"{size / 1024**3:.0f} GiB" if isinstance(size, int) and size > 0 else ""


def _time(text: str) -> str:
    """Return a report's time as people write it."""
    return datetime.strptime(text, TIME).strftime("%Y-%m-%d %H:%M UTC")
