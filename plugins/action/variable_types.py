"""Action plugin: refuse misspelt, wrongly typed or useless variables, and variables that a node sets."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import foreign_facts
from ansible_collections.xpu.fleet.plugins.plugin_utils.core import require_core
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.check import Check
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import options_of, roles

OPTIONS: dict[str, dict[str, Any]] = {
    "roles": {"type": "list", "elements": "str", "default": []},
}


class ActionModule(ActionBase):
    """Runs only on the controller."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with one message that names every such variable; return those to check later."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        require_core()
        _ignored, arguments = self.validate_argument_spec(argument_spec=OPTIONS)
        variables = task_vars or {}
        check = Check(variables, self._templar.template)
        found = foreign_facts(variables.get("ansible_facts") or {}, roles())
        # Facts of a node are not a mistake in the inventory.
        if not found:
            check.names()
            check.values(options_of(arguments["roles"] or roles()))
            found = check.problems
        if found:
            return {**result, "changed": False, "failed": True, "msg": " ".join(found)}
        return {**result, "changed": False, "postponed": check.postponed}
