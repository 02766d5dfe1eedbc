"""Action side of xpu.fleet.zipapp: build the archive on the controller, let ansible.builtin.copy carry it over."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path
from typing import Any, Optional

from ansible import constants as C
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.zip_tree import TreeError, build_archive, list_archive

_PASSED_ON = ("dest", "mode", "owner", "group")


class ActionModule(ActionBase):
    """Zip a package directory of the controller and put it on the node."""

    _requires_connection = True
    _supports_check_mode = True
    TRANSFERS_FILES = True

    def run(self, tmp: Optional[str] = None, task_vars: Optional[dict[str, Any]] = None) -> dict[str, Any]:
        """Return what the copy of the archive returned, with the files that differ as its diff."""
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
            result = self._copy(name, task_vars)
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
        """The archive that is on the node now, empty when there is none."""
        found = self._execute_module(
            module_name="ansible.legacy.slurp", module_args={"src": self._task.args["dest"]}, task_vars=task_vars
        )
        return base64.b64decode(found["content"]) if "content" in found else b""

    def _copy(self, source: str, task_vars: dict[str, Any]) -> dict[str, Any]:
        """Run ansible.builtin.copy for the archive at SOURCE on the controller."""
        task = self._task.copy()
        task.args = {"src": source, **{name: self._task.args[name] for name in _PASSED_ON if name in self._task.args}}
        copy = self._shared_loader_obj.action_loader.get(
            "ansible.legacy.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        result: dict[str, Any] = copy.run(task_vars=task_vars)
        return result
