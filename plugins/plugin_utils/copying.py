"""Copying files to the node, for action plugins."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.model.formats import part_name
from ansible_collections.xpu.fleet.plugins.plugin_utils.door import run_action


def visible_files(root: Path) -> dict[str, Path]:
    """Return a file, or the files of a directory, by name, without hidden ones, which are no weights.

    One part of a split model stands for all of its parts.
    """
    part = part_name(root.name)
    beside = [root.with_name(name) for name in part.siblings] if part else [root]
    found = sorted(root.glob("*")) if root.is_dir() else beside
    return {path.name: path for path in found if path.is_file() and not path.name.startswith(".")}


def file_listing(place: str) -> dict[str, list[int]]:
    """Return size and time of the files at a path of the controller, as module model_files records them."""
    files = visible_files(Path(place))
    return {name: [path.stat().st_size, int(path.stat().st_mtime)] for name, path in files.items()}


def copy_to_node(action: Any, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
    """Run ansible.builtin.copy with ``arguments`` in place of ``action``'s task and return its result."""
    return run_action(action, "ansible.legacy.copy", arguments, task_vars)
