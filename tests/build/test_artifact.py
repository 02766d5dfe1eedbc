"""The collection as an operator gets it: built, installed in an empty folder, away from the checkout."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

from tests.build.artifact import COLLECTION, ROOT, ansible


def names_of(plugins: Iterable[str]) -> list[str]:
    """Return the full names of plugins, sorted."""
    return sorted(f"xpu.fleet.{name}" for name in plugins)


def filters() -> set[str]:
    """Return the names of the filters; one file has several."""
    files = [path.stem for path in ROOT.glob("plugins/filter/*.py")]
    modules = [importlib.import_module(f"ansible_collections.xpu.fleet.plugins.filter.{file}") for file in files]
    return {name for module in modules for name in module.FilterModule().filters()}


#: Every plugin that ansible-doc knows, by its kind.
PLUGINS = {
    "module": names_of(path.stem for path in ROOT.glob("plugins/modules/*.py")),
    "callback": names_of(path.stem for path in ROOT.glob("plugins/callback/*.py")),
    "lookup": names_of(path.stem for path in ROOT.glob("plugins/lookup/*.py")),
    "filter": names_of(filters()),
}


@pytest.mark.parametrize("playbook", [path.stem for path in sorted((ROOT / "playbooks").glob("*.yml"))])
def test_a_playbook_and_all_its_roles_load(folder: Path, playbook: str) -> None:
    listed = ansible(["ansible-playbook", f"xpu.fleet.{playbook}", "-i", "localhost,", "--syntax-check"], folder)
    assert str(folder / COLLECTION / f"playbooks/{playbook}.yml") in listed


@pytest.mark.parametrize(("kind", "names"), PLUGINS.items())
def test_every_plugin_has_its_documentation(folder: Path, kind: str, names: list[str]) -> None:
    documented = json.loads(ansible(["ansible-doc", "-t", kind, "--json", *names], folder))
    missing = [
        name
        for name in names
        if not documented.get(name, {}).get("doc", {}).get("short_description")
        or (kind != "callback" and not documented[name].get("examples"))
    ]
    assert names
    assert missing == []
    # Text output takes another path: valid JSON can still break the page.
    text = ansible(["ansible-doc", "-t", kind, *names], folder)
    assert [name for name in names if name not in text] == []


def test_every_role_has_its_documentation(folder: Path) -> None:
    roles = {path.parents[1].name: {"main"} for path in ROOT.glob("roles/*/tasks/main.yml")}
    for entry in ("preflight", "rollback"):
        for path in ROOT.glob(f"roles/*/tasks/{entry}.yml"):
            roles[path.parents[1].name].add(entry)
    names = [f"xpu.fleet.{name}" for name in sorted(roles)]
    documented = json.loads(ansible(["ansible-doc", "-t", "role", "--json", *names], folder))
    found = {name: set(documented.get(f"xpu.fleet.{name}", {}).get("entry_points", {})) for name in roles}
    assert {name: entries - found[name] for name, entries in roles.items() if entries - found[name]} == {}


def test_only_what_an_operator_needs_is_in_it(folder: Path) -> None:
    installed = folder / COLLECTION
    written_by_galaxy = {"MANIFEST.json", "FILES.json"}
    folders = {"inventories", "meta", "playbooks", "plugins", "roles"}
    files = {"CHANGELOG.rst", "LICENSE"} | {path.name for path in ROOT.glob("README*.md")}
    assert {path.name for path in installed.iterdir()} == folders | files | written_by_galaxy
    assert [path for path in installed.rglob("*") if path.suffix == ".pyc" or path.name == "__pycache__"] == []


def test_no_link_in_it_is_dead(folder: Path) -> None:
    """Links to the repository lead at least to this checkout."""
    installed = folder / COLLECTION
    repository = f"{yaml.safe_load((ROOT / 'galaxy.yml').read_text())['repository']}/blob/main/"
    documents = sorted(installed.rglob("*.md"))
    dead = {str(path.relative_to(installed)): found for path in documents if (found := dead_links(path, repository))}
    assert documents
    assert dead == {}


def dead_links(document: Path, repository: str) -> list[str]:
    """Return the targets of a document's links that lead neither to a file nor to another host."""
    dead = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text(encoding="utf-8")):
        in_repository = target.startswith(repository)
        if in_repository or "://" not in target:
            place, _hash, anchor = target.removeprefix(repository).partition("#")
            path = (ROOT if in_repository else document.parent) / place if place else document
            if not path.exists() or (anchor and anchor not in anchors(path)):
                dead.append(target)
    return dead


def anchors(document: Path) -> set[str]:
    """Return GitHub's anchors of a document's headings."""
    text = re.sub(r"(?ms)^```.*?^```", "", document.read_text(encoding="utf-8"))
    headings = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_the_readme_names_every_playbook_as_it_is_called_where_it_is_installed() -> None:
    names = [f"`xpu.fleet.{path.stem}`" for path in sorted((ROOT / "playbooks").glob("*.yml"))]
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert names
    assert [name for name in names if name not in text] == []
