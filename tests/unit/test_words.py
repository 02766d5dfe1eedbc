"""Tasks have names that begin with one of few verbs, so that a run reads the same everywhere."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
#: CONTRIBUTING.md says what each of them means.
VERBS = ("Check", "Ensure", "Install", "Read", "Remove", "Report", "Set", "Wait")
FILES = sorted(
    [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("roles/*/handlers/*.yml")]
)


def names(tasks: Any) -> Iterator[str]:
    """The names of plays and tasks, those in blocks too."""
    for task in tasks if isinstance(tasks, list) else []:
        if "name" in task:
            yield task["name"]
        for part in ("block", "rescue", "always", "tasks", "pre_tasks", "post_tasks", "handlers"):
            yield from names(task.get(part))


def examples() -> dict[str, Any]:
    """The examples of modules, lookups and filters, by file."""
    found = {}
    for path in sorted([*ROOT.glob("plugins/modules/*.py"), *ROOT.glob("plugins/lookup/*.py")]):
        assigned = {
            node.targets[0].id: node.value.value
            for node in ast.parse(path.read_text(encoding="utf-8")).body
            if isinstance(node, ast.Assign)
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Constant)
        }
        found[path.stem] = yaml.safe_load(str(assigned.get("EXAMPLES", "")))
    for path in sorted(ROOT.glob("plugins/filter/*.yml")):
        found[path.stem] = yaml.safe_load(yaml.safe_load(path.read_text(encoding="utf-8"))["EXAMPLES"])
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_task_begins_with_a_verb_of_the_set(path: Path) -> None:
    said = list(names(yaml.safe_load(path.read_text(encoding="utf-8"))))
    assert [name for name in said if not name.startswith(tuple(f"{verb} " for verb in VERBS))] == []


def test_examples_begin_with_one_too() -> None:
    said = [name for tasks in examples().values() for name in names(tasks)]
    assert len(said) > 30
    assert [name for name in said if not name.startswith(tuple(f"{verb} " for verb in VERBS))] == []
