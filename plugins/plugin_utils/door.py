"""The controller's side of modules that look at nodes: of what a node returns, only what makes sense is handed on."""

from __future__ import annotations

from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.plain import plain_data

#: What a task that failed tells.
_FAILURE = ("failed", "unreachable", "skipped", "msg", "rc", "module_stdout", "module_stderr")


def look(action: Any, module: str, task_vars: dict[str, Any] | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a module in the place of the task of ``action``.

    Return what it found and what the task failed of: one of the two is empty. Facts, variables and warnings of the
    node's own making are in neither.
    """
    result = action._execute_module(
        module_name=f"xpu.fleet.{module}", module_args=dict(action._task.args), task_vars=task_vars or {}
    )
    if any(result.get(key) for key in ("failed", "unreachable", "skipped")):
        told = {key: plain_data(result[key]) for key in _FAILURE if key in result}
        return {}, {**told, "msg": str(told.get("msg") or "no message")}
    return result, {}
