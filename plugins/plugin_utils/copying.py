"""Lets an action plugin carry a file to the node."""

from __future__ import annotations

from typing import Any


def copy_to_node(action: Any, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    """Run ansible.builtin.copy with ``arguments`` in the place of the task of ``action`` and return its result."""
    task = action._task.copy()
    task.args = arguments
    copy = action._shared_loader_obj.action_loader.get(
        "ansible.legacy.copy",
        task=task,
        connection=action._connection,
        play_context=action._play_context,
        loader=action._loader,
        templar=action._templar,
        shared_loader_obj=action._shared_loader_obj,
    )
    result: dict[str, Any] = copy.run(task_vars=task_vars)
    return result
