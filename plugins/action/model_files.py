"""Action side of xpu.fleet.model_files: copies weights from the controller."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Optional

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.model.judge import Use, judge, judge_header
from ansible_collections.xpu.fleet.plugins.module_utils.model.weights import WeightsChoiceError, choose
from ansible_collections.xpu.fleet.plugins.module_utils.plain import one_line
from ansible_collections.xpu.fleet.plugins.plugin_utils.copying import copy_to_node, file_listing, visible_files


def _judge(arguments: Mapping[str, Any], files: Mapping[str, Path]) -> None:
    """Check weights on the controller as module model_files checks others. Raises WeightsError."""
    root, source = Path(str(arguments["source"]["location"])), arguments["source"]
    where = f"{root} on the controller"
    wanted = [str(source["file"])] if source.get("file") else []
    code = bool(arguments.get("code"))
    form, names = choose(files, arguments.get("formats", []), where=where, wanted_files=wanted, code=code)
    use = Use(str(arguments.get("engine", "")), int(arguments.get("context_length", 0)))
    judge(names, form, lambda name: files[name].read_bytes(), where=where, use=use)
    for name in names:
        if name.endswith(".safetensors"):
            judge_header(files[name])


class ActionModule(ActionBase):
    """Runs the module; if it asks for files of the controller, copies them and runs it again."""

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
            raise AnsibleActionFail(
                f"Model {arguments.get('name')}: {root} on the controller is empty. Put the weights there."
            )
        try:
            _judge(arguments, files)
        except WeightsChoiceError as error:
            raise AnsibleActionFail(f"Model {arguments.get('name')}: {error}.") from error
        arguments["listing"] = file_listing(str(root))
        result = self._module(arguments, variables)
        if result.get("failed") or not result.get("incoming"):
            return result
        asked = result.get("files")
        for name in asked if isinstance(asked, list) else [asked]:
            if not isinstance(name, str) or name not in files:
                raise AnsibleActionFail(
                    f"The node asks for {one_line(name)}, which is not one of the model's files in {root}."
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
