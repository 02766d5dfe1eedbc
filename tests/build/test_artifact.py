"""The collection as an operator gets it: built, installed in an empty folder, away from the checkout."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.filter.audit import FilterModule

ROOT = Path(__file__).resolve().parents[2]


def names_of(plugins: Iterable[str]) -> list[str]:
    """Return the full names of plugins, sorted."""
    return sorted(f"xpu.fleet.{name}" for name in plugins)


#: Every plugin that ansible-doc knows, by its kind: a file each, but for filters, of which a file has many.
PLUGINS = {
    "module": names_of(path.stem for path in ROOT.glob("plugins/modules/*.py")),
    "callback": names_of(path.stem for path in ROOT.glob("plugins/callback/*.py")),
    "filter": names_of(FilterModule().filters()),
}


def ansible(command: list[str], folder: Path) -> str:
    """Run one of Ansible's commands with nothing of this machine's configuration and return its output."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(folder), "ANSIBLE_HOME": str(folder / "home"), "NO_COLOR": "1"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with the built collection installed."""
    folder = tmp_path_factory.mktemp("operator")
    ansible(["ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(folder)], folder)
    (artifact,) = folder.glob("xpu-fleet-*.tar.gz")
    ansible(["ansible-galaxy", "collection", "install", str(artifact), "-p", str(folder), "--offline"], folder)
    return folder


@pytest.mark.parametrize("playbook", ["site", "rollback", "audit", "plan", "gpus"])
def test_a_playbook_and_all_its_roles_load(folder: Path, playbook: str) -> None:
    listed = ansible(["ansible-playbook", f"xpu.fleet.{playbook}", "-i", "localhost,", "--syntax-check"], folder)
    assert str(folder / f"ansible_collections/xpu/fleet/playbooks/{playbook}.yml") in listed


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
    # As text it is put together otherwise: what JSON has can still be something that no page can be made of.
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
    installed = folder / "ansible_collections/xpu/fleet"
    top = {path.name for path in installed.iterdir()}
    assert {"roles", "plugins", "playbooks", "meta", "LICENSE", "README.md", "CHANGELOG.rst"} <= top
    assert not top & {"molecule", "tests", "collections", "requirements", "Makefile", ".ci", "pyproject.toml"}
    assert [path for path in installed.rglob("*") if path.suffix == ".pyc" or path.name == "__pycache__"] == []
