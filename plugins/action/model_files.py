"""Action side of xpu.fleet.model_files: carries weights over that are on the controller."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.plugin_utils.copying import copy_to_node


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
        files = (
            {root.name: root}
            if root.is_file()
            else {item.name: item for item in sorted(root.glob("*")) if item.is_file()}
        )
        if not files:
            raise AnsibleActionFail(f"Model {arguments.get('name')}: there is nothing in {root} on the controller.")
        arguments["listing"] = {
            name: [path.stat().st_size, int(path.stat().st_mtime)]
            for name, path in files.items()
            if not name.startswith(".")
        }
        result = self._module(arguments, variables)
        if result.get("failed") or not result.get("incoming"):
            return result
        for name in result["files"]:
            if not re.fullmatch(r"[^/]+", name) or name not in files:
                raise AnsibleActionFail(f"The node asks for {name!r}, which is no file of {root}.")
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
