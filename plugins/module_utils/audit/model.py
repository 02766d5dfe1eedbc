"""Layer model: the weights are the verified ones, from the expected source."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.node import AuditedNode
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import (
    StoreError,
    WeightsRequest,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.store import (
    MANIFEST,
    closed_to_others,
    describe,
    in_place,
    read_stored,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.weights import WeightsChoiceError

_WHOLE = "as verified"


class ModelAudit(LayerAudit):
    """Compares the directory with its manifest; reads a file only if its size or time changed since it was verified."""

    name = "model"
    keys = frozenset({"name", "directory", "source", "formats", "code", "listing", "low_bit"})

    def look(self, report: Report) -> None:
        """Check the weights, and those converted from them."""
        with report.looking_at("weights"):
            request = _request(self.node, self.expected)
            try:
                weights = _weights(request)
            except (StoreError, WeightsChoiceError) as error:
                report.compare(f"weights of {self.expected['name']}", _WHOLE, str(error))
                return
            if not self._stored(report, request, self.expected["directory"]):
                return
            if self.expected.get("low_bit"):
                converted = _converted(self.node, self.expected, weights["digest"])
                self._stored(report, converted, self.expected["low_bit"]["directory"])

    def _stored(self, report: Report, request: WeightsRequest, directory: str) -> bool:
        if request.kind == "path":
            report.looked_at += 1
            return True
        if not self.node.exists(directory):
            report.absent(directory, _WHOLE)
            return False
        self.node.content(f"{directory}/{MANIFEST}")  # a file that only others can read is not damaged
        stored = read_stored(request)
        if not report.compare(f"weights in {directory}", _WHOLE, stored.reason or _WHOLE):
            return False
        closed = closed_to_others(request.directory.resolve(), [*stored.good, MANIFEST], self.node.root.resolve())
        shown = [f"/{path.relative_to(self.node.root.resolve())}" for path in closed]
        report.compare(f"files of {directory} that the service cannot read", [], shown)
        return True


def served_weights(node: AuditedNode, expected: Mapping[str, Any]) -> dict[str, Any]:
    """Return path, format and revision of the weights that the service opens, {} if they are missing."""
    try:
        weights = _weights(_request(node, expected))
    except (StoreError, WeightsChoiceError):
        return {}
    if not weights["digest"]:
        return {}
    # Weights without a commit are identified by their digest, as in role model.
    weights["revision"] = weights["revision"] or hashlib.sha256(str(weights["digest"]).encode()).hexdigest()
    if expected.get("low_bit"):
        return {**weights, "path": expected["low_bit"]["directory"], "format": "low_bit"}
    return {**weights, "path": f"/{Path(weights['path']).relative_to(node.root)}"}


def _request(node: AuditedNode, expected: Mapping[str, Any]) -> WeightsRequest:
    return WeightsRequest(
        directory=node.path(expected["directory"]),
        source=expected["source"],
        formats=expected["formats"],
        code=bool(expected.get("code")),
        listing=expected.get("listing", {}),
    )


def _weights(request: WeightsRequest) -> dict[str, Any]:
    """Return what module model_files returns for present weights. Raises StoreError if they are missing."""
    if request.kind == "path":
        return in_place(request)
    stored = read_stored(request)
    if stored.reason:
        return {"digest": "", "path": "", "format": "", "revision": ""}
    return describe(request, stored.manifest)


def _converted(node: AuditedNode, expected: Mapping[str, Any], digest: str) -> WeightsRequest:
    """Return the result of module model_low_bit."""
    low_bit = expected["low_bit"]
    made_from = {
        "kind": "low_bit",
        "location": expected["name"],
        "low_bit": low_bit["format"],
        "engine": low_bit["engine"],
        "digest": digest,
    }
    return WeightsRequest(directory=node.path(low_bit["directory"]), source=made_from, formats=["low_bit"])
