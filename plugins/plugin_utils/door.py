"""The controller's side of modules that read nodes: it validates what a node returns."""

from __future__ import annotations

from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.plain import plain_data

#: Fields of a failed task.
_FAILURE = ("failed", "unreachable", "skipped", "msg", "rc", "module_stdout", "module_stderr")


def run_action(action: Any, name: str, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    """Run another action plugin in place of ``action``'s task and return its result."""
    task = action._task.copy()
    task.args = arguments
    other = action._shared_loader_obj.action_loader.get(
        name,
        task=task,
        connection=action._connection,
        play_context=action._play_context,
        loader=action._loader,
        templar=action._templar,
        shared_loader_obj=action._shared_loader_obj,
    )
    result: dict[str, Any] = other.run(task_vars=task_vars)
    return result


def look(
    action: Any, module: str, task_vars: dict[str, Any] | None, arguments: dict[str, Any] | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Run a module in place of ``action``'s task, with its arguments unless others are given.

    Returns its result and the reason of a failure: one of the two is empty. Neither contains facts, variables and
    warnings that the node itself adds.
    """
    given = dict(action._task.args) if arguments is None else arguments
    result = action._execute_module(module_name=f"xpu.fleet.{module}", module_args=given, task_vars=task_vars or {})
    if any(result.get(key) for key in ("failed", "unreachable", "skipped")):
        told = {key: plain_data(result[key]) for key in _FAILURE if key in result}
        return {}, {**told, "msg": str(told.get("msg") or "no message")}
    return result, {}
