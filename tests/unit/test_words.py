"""Names of tasks begin with one of a few verbs, so that a run reads the same everywhere."""

from __future__ import annotations

import ast
import re
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


#: Words that read as translated, of which CONTRIBUTING.md has what to write instead.
BANNED = re.compile(
    r"\b(?:is|are|was|were) (?:not )?to be\b|\b(?:is|are|was|were) told\b|\banew\b|\bmend(?:s|ed)?\b"
    r"|\b(?:are|is) none of\b|\bthat (?:is|are) none\b|\btoo much waits\b|\bcan't\b",
    re.IGNORECASE,
)
#: Python whose strings people read: what a node, the controller and the service say.
SPEAKING = sorted([*ROOT.glob("plugins/**/*.py"), *ROOT.glob("roles/inference/files/xpuserve/xpuserve/**/*.py")])
#: Documents, and the sources of ansible-doc's output and the roles' tables.
DOCUMENTS = sorted(
    path
    for pattern in (
        *("README.md", "CONTRIBUTING.md", "roles/*/README.md", "roles/*/meta/argument_specs.yml"),
        *("plugins/filter/*.yml", "playbooks/**/*.yml", "roles/*/tasks/*.yml"),
    )
    for path in ROOT.glob(pattern)
)


def strings(path: Path) -> Iterator[str]:
    """The strings of a file that are no docstrings; of f-strings their constant parts, joined."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    places = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    documents = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, places) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documents:
            yield node.value


def test_words_that_read_as_translated_are_found() -> None:
    said = (
        "the index is written anew",
        "API keys that are none",
        "a client is told 401",
        "Mend it",
        "It is to be booted",
    )
    assert [text for text in said if not BANNED.search(text)] == []
    assert not BANNED.search("The menu is made again, and tells the client 401; amend none.")


@pytest.mark.parametrize("path", SPEAKING, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_are_in_plain_words(path: Path) -> None:
    # Two strings are messages of libraries, by which code recognises their errors.
    assert [text for text in strings(path) if BANNED.search(text) and path.name != "memory.py"] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_are_in_plain_words(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    if path.name == "CONTRIBUTING.md":  # where a table has such words on purpose
        lines = [line for line in lines if not line.startswith("| ")]
    comments = path.suffix == ".yml" and path.name != "argument_specs.yml"
    assert [line for line in lines if BANNED.search(line.partition("# ")[0] if comments else line)] == []
