"""The plugins' code is in rooms: no circles, short files and classes, one home for each fact."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
PACKAGE = "ansible_collections.xpu.fleet.plugins."
FILES = sorted(PLUGINS.rglob("*.py"))
#: Every kind of plugin has its code looked at, not the shared code alone.
KINDS = {"action", "callback", "filter", "lookup", "module_utils", "modules", "plugin_utils"}


def names(path: Path) -> str:
    return path.relative_to(PLUGINS).as_posix()


def room_of(parts: tuple[str, ...]) -> str:
    """The package that a module is in: a room of module_utils, a file beside the rooms, or a kind of plugin."""
    if parts[0] != "module_utils":
        return parts[0]
    return ".".join(parts[:2])


def imports(path: Path) -> Iterator[tuple[str, ...]]:
    """The collection's own modules that a file imports, as the parts of their names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(PACKAGE):
            parts = tuple((node.module or "").removeprefix(PACKAGE).split("."))
            for alias in node.names:
                inner = PLUGINS.joinpath(*parts, f"{alias.name}.py")
                yield (*parts, alias.name) if inner.exists() else parts


def circles(graph: dict[str, set[str]]) -> list[str]:
    """What can be reached from itself."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        rest = [start]
        while rest:
            for following in graph.get(rest.pop(), set()) - seen:
                seen.add(following)
                rest.append(following)
        return seen

    return sorted(node for node in graph if node in reached(node))


def test_no_import_goes_round_in_a_circle() -> None:
    rooms: dict[str, set[str]] = {}
    files: dict[str, set[str]] = {}
    for path in FILES:
        parts = path.relative_to(PLUGINS).with_suffix("").parts
        for imported in imports(path):
            files.setdefault(".".join(parts), set()).add(".".join(imported))
            if room_of(imported) != room_of(parts):
                rooms.setdefault(room_of(parts), set()).add(room_of(imported))
    assert len(files) > 50 and rooms["module_utils.boot"] >= {"module_utils.system"}
    assert circles(rooms) == [] and circles(files) == []


def test_a_room_imports_only_those_below_it() -> None:
    """In the order in which CONTRIBUTING.md has them."""
    order = ("system", "packages", "boot", "gpu", "stack", "runtime", "model", "audit")
    wrong = [
        (names(path), room)
        for path in FILES
        for room in (imported[1] for imported in imports(path) if imported[0] == "module_utils")
        if path.relative_to(PLUGINS).parts[1] in order
        and room in order
        and order.index(room) > order.index(path.relative_to(PLUGINS).parts[1])
    ]
    assert {path.parent.name for path in (PLUGINS / "module_utils").glob("*/*.py")} == set(order)
    assert wrong == []


def test_a_circle_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == ["b", "c"]


def test_every_kind_of_plugin_is_looked_at() -> None:
    assert {path.name for path in PLUGINS.iterdir() if path.is_dir() and path.name != "__pycache__"} == KINDS
    assert {path.relative_to(PLUGINS).parts[0] for path in FILES} == KINDS


def test_files_and_classes_are_short() -> None:
    lines = {names(path): len(path.read_text(encoding="utf-8").splitlines()) for path in FILES}
    assert {name: count for name, count in lines.items() if count > 400} == {}
    classes = {
        f"{names(path)}: {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    assert len(classes) > 50
    assert {name: count for name, count in classes.items() if count > 300} == {}


@pytest.mark.parametrize(
    ("fact", "mark", "home"),
    [
        ("running a command", "subprocess.run(", "module_utils/system/command.py"),
        ("reading dpkg", "dpkg-query", "module_utils/packages/dpkg.py"),
        ("simulating apt", '"--simulate"', "module_utils/packages/apt.py"),
        ("an order of versions", "class Version", "module_utils/packages/dpkg.py"),
        ("a lock of dpkg", "lock-frontend", "module_utils/packages/dpkg.py"),
        ("a layer", "class Layer:", "module_utils/layers.py"),
        ("a layer's role", '"gpu_driver"', "module_utils/layers.py"),
    ],
)
def test_a_fact_has_one_home(fact: str, mark: str, home: str) -> None:
    assert [names(path) for path in FILES if mark in path.read_text(encoding="utf-8")] == [home], fact


def test_what_is_written_for_good_is_written_in_one_way() -> None:
    """A file takes the place of another one in system/durable; only directories are swapped elsewhere."""
    fresh = ("os", "part", "fresh", "partial")
    found = {
        names(path)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and (node.attr in ("fsync", "atomic_move") or (node.attr == "replace" and ast.unparse(node.value) in fresh))
    }
    # GRUB's environment block is written in place: GRUB knows the blocks of the disk that it is in.
    assert found == {"module_utils/system/durable.py", "module_utils/boot/grub_writer.py"}


def test_every_error_of_the_collection_is_one_of_a_kind() -> None:
    bases = {
        node.name: [ast.unparse(base) for base in node.bases]
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    }
    assert len(bases) > 15
    assert {name: of for name, of in bases.items() if name != "FleetError" and of != ["FleetError"]} == {}


def test_every_module_has_a_test_of_its_name() -> None:
    """A module that runs on the controller alone has it beside the other actions."""
    tests = ROOT / "tests/unit/plugins"
    modules = {path.stem for path in (PLUGINS / "modules").glob("*.py")}
    there = {
        path.stem.removeprefix("test_") for kind in ("modules", "action") for path in (tests / kind).glob("test_*.py")
    }
    assert len(modules) > 20
    assert modules - there == set()
