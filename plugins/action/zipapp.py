"""Action side of xpu.fleet.zipapp: build the archive on the controller, copy it with ansible.builtin.copy."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path
from typing import Any, Optional

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.zip_tree import TreeError, build_archive, list_archive
from ansible_collections.xpu.fleet.plugins.plugin_utils.copying import copy_to_node

_PASSED_ON = ("dest", "mode", "owner", "group")


class ActionModule(ActionBase):
    """Zip a package directory of the controller and put it on the node."""

    _requires_connection = True
    _supports_check_mode = True
    TRANSFERS_FILES = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return the result of copying the archive, with the changed files as its diff."""
        task_vars = task_vars or {}
        super().run(tmp, task_vars)
        unknown = sorted(set(self._task.args) - {"src", "package", *_PASSED_ON})
        if unknown:
            raise AnsibleActionFail(f"zipapp has no option {', '.join(unknown)}")
        missing = [name for name in ("src", "dest") if not self._task.args.get(name)]
        if missing:
            raise AnsibleActionFail(f"zipapp needs {' and '.join(missing)}")
        try:
            archive = build_archive(Path(self._task.args["src"]), str(self._task.args.get("package") or ""))
        except TreeError as error:
            raise AnsibleActionFail(f"zipapp: {error}") from error

        before = self._installed(task_vars) if self._task.diff else b""
        handle, name = tempfile.mkstemp(suffix=".pyz", dir=C.DEFAULT_LOCAL_TMP)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(archive)
            passed_on = {option: self._task.args[option] for option in _PASSED_ON if option in self._task.args}
            result = copy_to_node(self, {"src": name, **passed_on}, task_vars)
        finally:
            Path(name).unlink()
        if self._task.diff and result.get("changed"):
            result["diff"] = [
                {
                    "before_header": self._task.args["dest"],
                    "after_header": self._task.args["dest"],
                    "before": list_archive(before),
                    "after": list_archive(archive),
                }
            ]
        return result

    def _installed(self, task_vars: dict[str, Any]) -> bytes:
        """The present archive on the node, empty if there is none."""
        found = self._execute_module(
            module_name="ansible.legacy.slurp", module_args={"src": self._task.args["dest"]}, task_vars=task_vars
        )
        return base64.b64decode(found["content"]) if "content" in found else b""
