"""The check that keeps option tables, defaults and argument specs together."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests/docs.py"
SPECS = """\
argument_specs:
  main:
    options: &options
      lamp_colour:
        description: Colour, C(red) or another.
        type: str
        default: red
      lamp_rooms:
        description: [Rooms with a lamp., All when empty.]
        type: list
        elements: str
        default: []
  preflight:
    options: *options
"""
DEFAULTS = "lamp_colour: red\nlamp_rooms: []\n"
README = "# lamp\n\n<!-- variables -->\n<!-- /variables -->\n\nThe end.\n"


@pytest.fixture
def role(tmp_path: Path) -> Path:
    """A role in order but for its table, which is not written yet."""
    role = tmp_path / "lamp"
    for name, text in (("meta/argument_specs.yml", SPECS), ("defaults/main.yml", DEFAULTS), ("README.md", README)):
        path = role / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return role


def docs(role: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--roles", str(role.parent), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_table_is_written_once_and_then_kept(role: Path) -> None:
    assert "run `make docs`" in docs(role, "--check").stdout
    assert docs(role).returncode == 0
    text = (role / "README.md").read_text()
    assert "| `lamp_colour` | str | `red` | Colour, `red` or another. |" in text
    assert "| `lamp_rooms` | list of str | `[]` | Rooms with a lamp. All when empty. |" in text
    assert text.endswith("\n\nThe end.\n")
    assert docs(role, "--check").returncode == 0
    docs(role)
    assert (role / "README.md").read_text() == text


@pytest.mark.parametrize(
    ("name", "old", "new", "complaint"),
    [
        ("defaults/main.yml", "lamp_rooms: []\n", "", "lamp_rooms is in meta/argument_specs.yml but not"),
        ("defaults/main.yml", "lamp_rooms", "lamp_flats", "lamp_flats is in defaults/main.yml but not"),
        ("defaults/main.yml", "red", "blue", "lamp_colour has another default"),
        ("meta/argument_specs.yml", "options: *options", "options: {}", "preflight has other options than main"),
        ("README.md", "<!-- /variables -->", "", "README.md needs the markers"),
    ],
)
def test_a_difference_is_named(role: Path, name: str, old: str, new: str, complaint: str) -> None:
    docs(role)
    path = role / name
    path.write_text(path.read_text().replace(old, new))
    result = docs(role, "--check")
    assert result.returncode == 1
    assert complaint in result.stdout


def load() -> Any:
    spec = importlib.util.spec_from_file_location("docs", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_pipe_does_not_end_a_table_cell() -> None:
    assert load().default({"default": "{{ a | default('') }}"}) == r"`{{ a \| default('') }}`"


def test_a_required_option_needs_no_default() -> None:
    entries = {"main": {"options": {"lamp_colour": {"required": True}}}}
    assert load().compare(entries, {}) == []
