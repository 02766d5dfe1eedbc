"""The audit as JUnit XML: a suite for each node, a case for each layer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

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

#: Characters that XML forbids even when escaped.
_ILLEGAL = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: The element for each status of a case.
_ELEMENTS = {DRIFT: "failure", MISSING: "failure", NOT_LOOKED_AT: "error", NOT_APPLICABLE: "skipped"}


def junit(report: Mapping[str, Any]) -> str:
    """Return the document. Hosts that ``--limit`` excludes are suites with only skipped cases."""
    time = _clean(report["time"].rstrip("Z"))  # consumers' schemas have no time zone: it is UTC
    root = ElementTree.Element("testsuites", name="xpu.fleet.audit")
    for host, node in report["nodes"].items():
        _suite(root, host, time, {name: _outcome(node, name) for name in NAMES})
    for host in report.get("left_out", ()):
        _suite(root, host, time, dict.fromkeys(NAMES, ("skipped", "left out by --limit", "", 0.0)))
    for count in ("tests", "failures", "errors", "skipped"):
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in root)))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _outcome(node: Mapping[str, Any], name: str) -> tuple[str, str, str, float]:
    """Return the element ("" for none), a line, the text and the seconds of a layer."""
    if name not in node["layers"]:
        if node["reason"] or not node["reached"]:
            return "error", node["reason"] or "not reached", "", 0.0
        return "skipped", "not asked for", "", 0.0
    layer = node["layers"][name]
    said = lines(layer)
    message = layer.get("reason") or (said[0] if len(said) == 1 else f"{len(said)} things")
    status = layer["status"]
    return "" if status == OK else _ELEMENTS[status], message, "\n".join(said), float(layer.get("seconds", 0))


def _suite(
    root: ElementTree.Element, host: str, time: str, outcomes: Mapping[str, tuple[str, str, str, float]]
) -> None:
    elements = [outcome[0] for outcome in outcomes.values()]
    suite = ElementTree.SubElement(
        root,
        "testsuite",
        {
            "name": _clean(host),
            "tests": str(len(outcomes)),
            "failures": str(elements.count("failure")),
            "errors": str(elements.count("error")),
            "skipped": str(elements.count("skipped")),
            "time": f"{sum(outcome[3] for outcome in outcomes.values()):.3f}",
            "timestamp": time,
            "hostname": _clean(host),
        },
    )
    for name, (element, message, text, seconds) in outcomes.items():
        case = ElementTree.SubElement(suite, "testcase", classname=_clean(host), name=name, time=f"{seconds:.3f}")
        if element:
            told = {"message": _clean(message), **({} if element == "skipped" else {"type": element})}
            ElementTree.SubElement(case, element, told).text = _clean(text) or None


def _clean(text: str) -> str:
    return _ILLEGAL.sub("\ufffd", str(text))
