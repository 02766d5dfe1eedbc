"""Action plugin: refuse role variables of the wrong type, and those that a node sets itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import foreign_facts, problems
from ansible_collections.xpu.fleet.plugins.plugin_utils.core import require_core

ROLES = Path(__file__).resolve().parents[2] / "roles"
OPTIONS: dict[str, dict[str, Any]] = {
    "roles": {"type": "list", "elements": "str", "required": True},
    "entry_point": {"type": "str", "default": "main"},
}


class ActionModule(ActionBase):
    """Runs wholly on the controller."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with one message that names every variable of a wrong type."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        require_core()
        _ignored, arguments = self.validate_argument_spec(argument_spec=OPTIONS)
        found = foreign_facts((task_vars or {}).get("ansible_facts") or {}, [path.name for path in ROLES.iterdir()])
        for role in arguments["roles"]:
            found += self._problems(ROLES / role, arguments["entry_point"], task_vars or {})
        if found:
            raise AnsibleActionFail(" ".join(found))
        return {**result, "changed": False}

    def _problems(self, role: Path, entry_point: str, variables: dict[str, Any]) -> list[str]:
        specs = self._loader.load_from_file(str(role / "meta/argument_specs.yml"), cache="all")["argument_specs"]
        options = specs[entry_point]["options"]
        values = {name: self._templar.template(variables[name]) for name in options if name in variables}
        return problems(options, values)
