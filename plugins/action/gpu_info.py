"""Action side of xpu.fleet.gpu_info: validates a node's answer."""

from __future__ import annotations

from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.answer import AnswerError, admitted_gpus
from ansible_collections.xpu.fleet.plugins.plugin_utils.door import look


class ActionModule(ActionBase):
    """Runs the module."""

    _supports_check_mode = True
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the documented result, or fail if the answer is malformed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        found, failure = look(self, "gpu_info", task_vars)
        try:
            return {**result, "changed": False, **(failure or admitted_gpus(found))}
        except AnswerError as error:
            raise AnsibleActionFail(
                f"The node's answer is malformed: {error}. The node may be damaged or compromised: check it."
            ) from error
