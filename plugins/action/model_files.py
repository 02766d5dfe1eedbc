"""Action side of xpu.fleet.model_files: carries weights over that are on the controller."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.plain import one_line
from ansible_collections.xpu.fleet.plugins.plugin_utils.copying import copy_to_node, file_listing, visible_files


class ActionModule(ActionBase):
    """Runs the module; where it asks for files of the controller, copies them and runs it again."""

    _supports_check_mode = True
    TRANSFERS_FILES = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the module's result."""
        variables = task_vars or {}
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        source = arguments.get("source")
        if not isinstance(source, dict) or source.get("kind") != "controller_path":
            return self._module(arguments, variables)
        root = Path(str(source["location"]))
        files = visible_files(root)
        if not files:
            raise AnsibleActionFail(f"Model {arguments.get('name')}: there is nothing in {root} on the controller.")
        arguments["listing"] = file_listing(str(root))
        result = self._module(arguments, variables)
        if result.get("failed") or not result.get("incoming"):
            return result
        asked = result.get("files")
        for name in asked if isinstance(asked, list) else [asked]:
            if not isinstance(name, str) or name not in files:
                raise AnsibleActionFail(
                    f"The node asks for {one_line(name)}, which is none of the model's files in {root}."
                )
            place = {"src": str(files[name].resolve()), "dest": f"{result['incoming']}/{name}", "mode": "0644"}
            copied = copy_to_node(self, place, variables)
            if copied.get("failed"):
                return copied
        return self._module({**arguments, "staged": True}, variables)

    def _module(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(
            module_name="xpu.fleet.model_files", module_args=arguments, task_vars=task_vars
        )
        return result
