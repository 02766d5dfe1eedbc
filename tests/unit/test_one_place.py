"""One place for each fact: versions of a stack are in its data, and the product knows nothing of the test rig."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
VARS = ROOT / "roles/stack/vars"


def product_files() -> Iterator[Path]:
    """What an operator installs and runs, but for the stacks' data and what is written for people."""
    for directory in ("roles", "plugins", "playbooks"):
        for path in (ROOT / directory).rglob("*"):
            if path.is_file() and VARS not in path.parents and path.suffix not in (".md", ".pyc"):
                yield path


def versions(data: Any) -> Iterator[str]:
    """Every string of a stack's data that is or holds an exact version, without the pin's name."""
    if isinstance(data, dict):
        for value in data.values():
            yield from versions(value)
    elif isinstance(data, list):
        for value in data:
            yield from versions(value)
    elif isinstance(data, str) and re.fullmatch(r"(\S+==)?\d+(\.\d+){2,}\S*", data):
        yield data.rpartition("==")[2]


def test_versions_of_stacks_are_in_their_data_only() -> None:
    known = {
        version
        for path in VARS.glob("*.yml")
        for version in versions(yaml.safe_load(path.read_text(encoding="utf-8"))["stack_definition"])
    }
    assert len(known) > 20
    found = [
        (path.relative_to(ROOT), version)
        for path in product_files()
        for version in known
        if version in path.read_text(encoding="utf-8")
    ]
    assert found == []


def test_the_product_does_not_know_the_test_rig() -> None:
    words = re.compile(r"\b(molecule|fixture|nspawn|10\.77\.)\b|tests/", re.IGNORECASE)
    found = [
        (path.relative_to(ROOT), match.group())
        for path in product_files()
        for match in words.finditer(path.read_text(encoding="utf-8"))
    ]
    assert found == []
