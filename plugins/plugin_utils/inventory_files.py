"""Find mistakes in an inventory's files, each in one sentence, before any host is contacted.

Ansible warns about some in several paragraphs, ignores what it could not read, or names no file.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

import yaml

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_YAML = (".yml", ".yaml", ".json")
_PARTS = ("hosts", "vars", "children")
_VARIABLES = ("group_vars", "host_vars")


def inventory_problem(sources: Iterable[str]) -> str:
    """Return the first mistake in these inventories and the variables beside them, "" without one.

    Host lists (``a,b``), scripts and the files of inventory plugins are left to Ansible.
    """
    for source in sources:
        if "," in source:
            continue
        path = Path(source)
        if not path.exists():
            return f"No inventory at {_shown(path)}: check the path after -i."
        files = sorted(path.iterdir()) if path.is_dir() else [path]
        for problem in (_of_file(file) for file in files if file.is_file()):
            if problem:
                return problem
        for problem in _of_variables(path if path.is_dir() else path.parent):
            return problem
    return ""


def _of_file(path: Path) -> str:
    if os.access(path, os.X_OK) or path.name.startswith("."):
        return ""
    if path.suffix in _YAML:
        return _of_yaml(path)
    return _of_ini(path) if path.suffix in ("", ".ini") else ""


def _of_variables(folder: Path) -> Iterator[str]:
    """Find mistakes in the files of variables beside an inventory."""
    for kind in _VARIABLES:
        for path in sorted((folder / kind).rglob("*")):
            if path.is_file() and path.suffix in ("", *_YAML) and not path.name.startswith("."):
                node, problem = _composed(path)
                if node and not isinstance(node, yaml.MappingNode):
                    problem = f"{_at(path, node)}: write variables as a mapping (name: value)."
                if problem:
                    yield problem


def _composed(path: Path) -> tuple[Optional[yaml.Node], str]:
    """Return a YAML file as nodes, which know their lines, or why it cannot be read; neither if it is encrypted."""
    try:
        text = path.read_text(encoding="utf-8")
        node = None if text.startswith("$ANSIBLE_VAULT") else yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        return None, f"{_shown(path)}:{line} is not YAML: {error.problem}."
    except (UnicodeDecodeError, yaml.YAMLError):
        return None, f"{_shown(path)} is not YAML: it has control characters."
    except OSError as error:
        return None, f"{_shown(path)} cannot be read: {error.strerror}."
    return node, _twice(path, node)


def _twice(path: Path, node: Optional[yaml.Node]) -> str:
    """Find a duplicate key: the first value would be lost."""
    if isinstance(node, yaml.MappingNode):
        seen: dict[Any, int] = {}
        for key, _part in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    return f"{_at(path, key)}: {key.value} is set twice, first in line {seen[key.value]}."
                seen[key.value] = key.start_mark.line + 1
        parts: list[yaml.Node] = [part for _key, part in node.value]
    else:
        parts = node.value if isinstance(node, yaml.SequenceNode) else []
    return next((problem for part in parts if (problem := _twice(path, part))), "")


def _of_yaml(path: Path) -> str:
    node, problem = _composed(path)
    if problem or node is None:
        return problem
    if not isinstance(node, yaml.MappingNode):
        return f"{_at(path, node)}: write an inventory as a mapping of groups (all: ...)."
    groups = _mapping(node)
    if any(key.value == "plugin" for key in groups):
        return ""
    return next((problem for key, group in groups.items() if (problem := _of_group(path, key, group))), "")


def _mapping(node: yaml.Node) -> Mapping[yaml.ScalarNode, yaml.Node]:
    return dict(node.value)


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


def _of_group(path: Path, name: yaml.ScalarNode, group: yaml.Node) -> str:
    if _is_empty(group):
        return ""
    if not isinstance(group, yaml.MappingNode):
        return f"{_at(path, group)}: group {name.value} is a mapping of hosts, vars and children."
    parts = _mapping(group).items()
    return next((problem for key, part in parts if (problem := _of_part(path, name.value, key, part))), "")


def _of_part(path: Path, group: str, key: yaml.ScalarNode, part: yaml.Node) -> str:
    """Find mistakes in the hosts, variables or children of a group."""
    if key.value not in _PARTS:
        return (
            f"{_at(path, key)}: group {group} takes only hosts, vars and children, not {key.value}. Write variables "
            "under vars."
        )
    if _is_empty(part) or (key.value == "vars" and isinstance(part, yaml.MappingNode)):
        return ""
    if not isinstance(part, yaml.MappingNode):
        entry = "each as name: value" if key.value == "vars" else "each with a colon behind its name"
        return f"{_at(path, part)}: {key.value} of group {group} is a mapping, {entry}."
    check = _of_group if key.value == "children" else _of_host
    return next((problem for name, value in part.value if (problem := check(path, name, value))), "")


def _of_host(path: Path, name: yaml.ScalarNode, value: yaml.Node) -> str:
    if _is_empty(value) or isinstance(value, yaml.MappingNode):
        return ""
    return f"{_at(path, value)}: host {name.value} is a mapping of its variables, such as ansible_host: ADDRESS."


def _of_ini(path: Path) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return f"{_shown(path)} cannot be read as text."
    if lines and lines[0].startswith(("---", "$ANSIBLE_VAULT")):
        return ""
    groups, used, kind = {"all", "ungrouped"}, dict[str, int](), "hosts"
    for number, line in enumerate((line.strip() for line in lines), 1):
        where = f"{_shown(path)}:{number}"
        if not line or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            section = re.match(r"\[([^:\]\s]+)(?::(\w+))?\]\s*([#;].*)?$", line)
            if not section:
                return f"{where}: {line} is not a section: write [group], [group:vars] or [group:children]."
            kind = section[2] or "hosts"
            if kind not in _PARTS:
                return f"{where}: {line} is not a section: write vars or children after the colon."
            if kind == "vars":
                used.setdefault(section[1], number)
            else:
                groups.add(section[1])
        elif kind == "children":
            groups.add(line.split()[0])
        elif problem := _of_line(line, kind):
            return f"{where}: {problem}"
    missing = next((name for name in used if name not in groups), "")
    return f"{_shown(path)}:{used[missing]}: unknown group {missing}." if missing else ""


def _of_line(line: str, kind: str) -> str:
    if kind == "vars":
        return "" if "=" in line else f"{line} is not a variable: write name=value."
    try:
        strange = [part for part in shlex.split(line, comments=True)[1:] if "=" not in part]
    except ValueError:
        return "a quotation mark is not closed."
    return f"{strange[0]} is not a variable: write name=value, in quotes if it has spaces." if strange else ""


def _at(path: Path, node: yaml.Node) -> str:
    return f"{_shown(path)}:{node.start_mark.line + 1}"


def _shown(path: Path) -> str:
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except ValueError:
        return str(path)
