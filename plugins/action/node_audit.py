"""Action side of xpu.fleet.node_audit: passes the expectations, and validates the node's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.audit.audits import (
    summary,
)
from ansible_collections.xpu.fleet.plugins.module_utils.audit.door import admitted_layers
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.plugin_utils.door import look, run_action
from ansible_collections.xpu.fleet.plugins.plugin_utils.expectations import expected_of, variable_of
from ansible_collections.xpu.fleet.plugins.plugin_utils.role_variables import with_roles
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import COLLECTION

#: The preflight checks whether a model fits into the node's memory; here any model fits.
ENOUGH_MB = 16 * 1024**2


class _Shared(dict[str, Any]):
    """Variables exempt from deep copies: the lookup copies for each template, which takes the longest."""

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return dict(self)


class ActionModule(ActionBase):
    """Runs the module."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return ``status`` and ``layers``, or why the module failed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        wanted = arguments.get("layers") or NAMES
        if "expected" not in arguments:
            arguments["expected"] = self.expected(wanted, task_vars or {})
        found, failure = look(self, "node_audit", task_vars, arguments)
        if failure:
            return {**result, **failure}
        layers = admitted_layers(found.get("layers"), NAMES, wanted)
        return {**result, "changed": False, "status": summary(layers), "layers": layers}

    def expected(self, layers: Sequence[str], task_vars: Mapping[str, Any]) -> dict[str, Any]:
        """Return the roles' expectations of the node for these layers."""
        variables = with_roles(task_vars)
        templar = self._templar.copy_with_new_env(available_variables=variables)
        if "model" in layers:
            asked = {"request": templar.template(variables["__model_request"]), "memory_mb": ENOUGH_MB}
            variables["__model_plan"] = run_action(self, "xpu.fleet.resolve_model", asked, dict(task_vars))["model"]
        lookup = self._shared_loader_obj.lookup_loader.get(
            "ansible.builtin.template", loader=self._loader, templar=templar
        )

        shared = _Shared(variables)

        def render(template: str, more: Mapping[str, Any]) -> str:
            role, name = template.split("/")
            place = COLLECTION / "roles" / role / "templates" / name
            return str(lookup.run([str(place)], shared, template_vars=dict(more))[0])

        return {name: expected_of(templar.template(variables[variable_of(name)]), render) for name in layers}
