"""The audit of a node: all its layers, from the ground up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.audit.access import AccessAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.driver import DriverAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.kernel import KernelAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.model import ModelAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.node import AuditedNode
from ansible_collections.xpu.fleet.plugins.module_utils.audit.oneapi import OneApiAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.platform import PlatformAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.python import PythonAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import (
    DRIFT,
    MISSING,
    NOT_LOOKED_AT,
    OK,
    Report,
)
from ansible_collections.xpu.fleet.plugins.module_utils.audit.repository import RepositoryAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.service import ServiceAudit
from ansible_collections.xpu.fleet.plugins.module_utils.layers import NAMES

AUDITS: Mapping[str, type[LayerAudit]] = {
    audit.name: audit
    for audit in (
        PlatformAudit,
        RepositoryAudit,
        KernelAudit,
        DriverAudit,
        AccessAudit,
        OneApiAudit,
        PythonAudit,
        ModelAudit,
        ServiceAudit,
    )
}


def audit(node: AuditedNode, layers: Sequence[str] = NAMES) -> dict[str, dict[str, Any]]:
    """Audit these layers and return the findings as plain data, with the time taken."""
    found = {}
    for name in NAMES:
        if name in layers:
            began = time.monotonic()
            report = _look(AUDITS[name], node, node.expected.get(name))
            found[name] = {**report.as_dict(), "seconds": round(time.monotonic() - began, 3)}
    return found


def summary(layers: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the state of a node in one word: drift if something is wrong, ok only if everything was checked."""
    states = {layer["status"] for layer in layers.values()}
    if states & {DRIFT, MISSING}:
        return DRIFT
    return NOT_LOOKED_AT if NOT_LOOKED_AT in states or not states else OK


def _look(layer: type[LayerAudit], node: AuditedNode, expected: Optional[Mapping[str, Any]]) -> Report:
    report = Report()
    if expected is None:
        report.reason = "no expected state is set"
    elif not expected or "not_applicable" in expected:
        report.applies = False
        report.reason = str(expected.get("not_applicable", "the stack has none"))
    else:
        with report.looking_at(f"layer {layer.name}"):
            layer(node, expected).look_at_all(report)
    return report
