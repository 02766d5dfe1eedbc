"""Action plugin: refuse role variables of the wrong type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import problems

OPTIONS: dict[str, dict[str, Any]] = {
    "role": {"type": "path", "required": True},
    "entry_point": {"type": "str", "default": "main"},
}


class ActionModule(ActionBase):
    """Runs wholly on the controller."""

    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with one message that names every variable of a wrong type."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        _, arguments = self.validate_argument_spec(argument_spec=OPTIONS)
        path = Path(arguments["role"]) / "meta/argument_specs.yml"
        options = self._loader.load_from_file(str(path), cache="all")["argument_specs"][arguments["entry_point"]][
            "options"
        ]
        variables = task_vars or {}
        values = {name: self._templar.template(variables[name]) for name in options if name in variables}
        found = problems(options, values)
        if found:
            raise AnsibleActionFail(" ".join(found))
        return {**result, "changed": False}
