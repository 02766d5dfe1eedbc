"""What the stacks pin: packages of each engine's environment, Debian packages, installers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
_LINE = re.compile(r"^(?P<name>[A-Za-z0-9][\w.-]*)==(?P<version>[^\s;\\]+)")


@dataclass(frozen=True)
class Pin:
    """One package of an environment, and the SHA-256 of every file that may be it."""

    name: str
    version: str
    sha256: tuple[str, ...] = ()


def stacks() -> dict[str, dict[str, Any]]:
    """Return the data of every stack, by name."""
    paths = sorted((ROOT / "roles/stack/vars").glob("*.yml"))
    return {path.stem: yaml.safe_load(path.read_text(encoding="utf-8"))["stack_definition"] for path in paths}


def environments() -> dict[str, list[Pin]]:
    """Return the packages of every environment, by its name; those without hashes come from the stacks."""
    found = {}
    for path in sorted((ROOT / "roles/stack/vars/requirements").glob("*.txt")):
        found[path.stem] = [*_pins(path.read_text(encoding="utf-8")), *_unhashed(path.stem)]
    return found


def _pins(text: str) -> Iterator[Pin]:
    for line in text.replace("\\\n", " ").splitlines():
        match = _LINE.match(line)
        if match:
            yield Pin(match["name"].lower(), match["version"], tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", line)))


def _unhashed(environment: str) -> list[Pin]:
    lines = {
        line: None
        for stack in stacks().values()
        for line in stack["python"]["environments"].get(environment, {}).get("unhashed", [])
    }
    return [pin for line in lines for pin in _pins(line)]
