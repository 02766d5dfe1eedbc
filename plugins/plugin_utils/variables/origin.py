"""Where a variable was written, as far as Ansible remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def origin(*candidates: Any) -> str:
    """Return file and line of the first value (or name) that knows them, "" without any.

    From ansible-core 2.19 on values have an origin, up to 2.18 strings, lists and mappings out of YAML files. Both are
    read by attribute: neither is an interface.
    """
    for candidate in candidates:
        if place := _tagged(candidate) or _positioned(candidate):
            return place
    return ""


def _tagged(value: Any) -> str:
    tags = getattr(value, "_ansible_tags_mapping", None) or {}
    for kind, tag in tags.items():
        if kind.__name__ == "Origin":
            path, line = getattr(tag, "path", None), getattr(tag, "line_num", None)
            if path:
                return _shown(str(path), line)
            return str(getattr(tag, "description", None) or "").strip("<>")
    return ""


def _positioned(value: Any) -> str:
    position = getattr(value, "ansible_pos", None)
    return _shown(str(position[0]), position[1]) if position and position[0] else ""


def _shown(path: str, line: Any) -> str:
    """Return a path in its shortest form from the working directory."""
    if Path(path).is_relative_to(Path.cwd()):
        path = str(Path(path).relative_to(Path.cwd()))
    return f"{path}:{line}" if line else path
