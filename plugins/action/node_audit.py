"""Action side of xpu.fleet.node_audit: hands on what makes sense of a node's answer, for the layers that were asked."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.audit.audits import (
    summary,
)
from ansible_collections.xpu.fleet.plugins.module_utils.audit.door import admitted_layers
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.plugin_utils.door import look


class ActionModule(ActionBase):
    """Runs the module."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``status`` and ``layers``, or why the module failed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        found, failure = look(self, "node_audit", task_vars)
        if failure:
            return {**result, **failure}
        layers = admitted_layers(found.get("layers"), NAMES, self._task.args.get("layers") or NAMES)
        return {**result, "changed": False, "status": summary(layers), "layers": layers}
