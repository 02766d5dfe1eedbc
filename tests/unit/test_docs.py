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
STACK = """\
stack_definition:
  title: Lamps of 1999
  families: [arc, arc-b]
  distributions: [{name: Ubuntu, release: "22.04"}]
  model: tiny
  engines: [glow]
  minimum_kernels:
    - {devices: [arc], kernel: "6.2", confidence: H, source: a table}
    - {devices: [e212], kernel: "6.14", confidence: M, source: a report}
    - {devices: [arc], releases: ["24.04"], kernel: "6.8", confidence: H, source: a report}
  driver: {module: ""}
  kernel: {metapackage: linux}
  variants:
    - {families: [arc-b], set: {kernel: {before: "7.0"}}}
  evidence:
    - {families: [arc], how: stand-ins}
    - {families: [arc-b], releases: ["22.04"], how: reported, source: one}
"""
STACKS = "<!-- stacks -->\n<!-- /stacks -->\n"
WORKS = "<!-- works -->\n<!-- /works -->\n"


@pytest.fixture
def role(tmp_path: Path) -> Path:
    """A role in order but for its table, which is not written yet."""
    files = {
        "README.md": STACKS + WORKS,
        "README.zh-CN.md": STACKS + WORKS,
        "roles/lamp/README.md": README,
        "roles/lamp/defaults/main.yml": DEFAULTS,
        "roles/lamp/meta/argument_specs.yml": SPECS,
        "roles/stack/README.md": STACKS,
        "roles/stack/vars/old.yml": STACK,
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "roles/lamp"


def docs(role: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), "--root", str(role.parents[1]), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_table_is_written_once_and_then_kept(role: Path) -> None:
    assert "run `make docs`" in docs(role, "--check").stdout
    assert docs(role).returncode == 0
    text = (role / "README.md").read_text()
    assert "| `lamp_colour` | str | `red` | Colour, `red` or another. |" in text
    assert "| `lamp_rooms` | list of str | `[]` | Rooms with a lamp. All when empty. |" in text
    assert text.endswith("\n\nThe end.\n")
    row = "| `old` | Arc A-series, Arc B-series | Ubuntu 22.04 | Lamps of 1999 | `tiny` |"
    readme = (role.parents[1] / "README.md").read_text()
    assert row in readme
    ubuntu = "of the kernel, packages of Ubuntu | glow"
    known = [
        f"| Arc A-series | 22.04 | `old` | 6.2 or newer | i915 {ubuntu} | run here on stand-ins |",
        f"| Arc B-series | 22.04 | `old` | Pro B50: 6.14 (one source), older than 7.0 | xe {ubuntu} | rep",
        "| Flex | 22.04 | none |  |  |  |  |",
    ]
    assert all(line in readme for line in known)
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
        ("README.md", "<!-- /variables -->", "", "lamp/README.md: needs the lines"),
        ("../stack/vars/old.yml", "1999", "2000", "stack/README.md: the table of stacks is old"),
        ("../../README.md", "<!-- works -->", "# Works\n<!-- works -->", "README.zh-CN.md: heading 1 is missing"),
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
    assert load().compare(entries, {"lamp_colour": ""}) == ["lamp_colour is required and yet has a default"]


def test_a_template_may_stand_as_what_it_is_by_itself(role: Path) -> None:
    """ansible-doc and Galaxy want a default of the option's type; the table says which variable it comes from."""
    (role / "defaults/main.yml").write_text("lamp_colour: red\nlamp_rooms: '{{ house.rooms | default([]) }}'\n")
    assert docs(role).returncode == 0
    assert "`{{ house.rooms \\| default([]) }}`" in (role / "README.md").read_text()
    (role / "defaults/main.yml").write_text("lamp_colour: red\nlamp_rooms: '{{ house.rooms | default([1]) }}'\n")
    refused = docs(role)
    assert refused.returncode == 1
    assert "lamp_rooms has another default" in refused.stdout
