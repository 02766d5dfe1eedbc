"""The cores and Pythons of `make test-core`, and their locked requirements."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.system import python_version
from ansible_collections.xpu.fleet.plugins.plugin_utils import core
from ansible_collections.xpu.fleet.tests import pythons

from tests.core import __main__ as command
from tests.core import nodes, runs

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = {(3, minor): Path(f"/usr/bin/python3.{minor}") for minor in (9, 10, 11, 12, 13)}


def test_each_core_runs_on_the_oldest_python_it_supports_and_the_newest_core_on_the_newest() -> None:
    chosen = {name: path.name for name, path in runs.controllers(list(runs.CORES), PYTHONS).items()}
    assert chosen == {
        **{"2.17": "python3.10", "2.18": "python3.11", "2.19": "python3.11"},
        **{"2.20": "python3.12", "2.21": "python3.13"},
    }


def test_a_core_without_a_python_is_left_out() -> None:
    only = {(3, 11): Path("/usr/bin/python3.11")}
    assert list(runs.controllers(list(runs.CORES), only)) == ["2.17", "2.18", "2.19"]
    assert runs.controllers(["2.21"], only) == {}


def test_every_core_from_the_oldest_promised_is_locked_at_its_version() -> None:
    assert {path.stem.removeprefix("core-") for path in ROOT.glob("requirements/core-*.in")} == set(runs.CORES)
    assert next(iter(runs.CORES)) == ".".join(map(str, core.OLDEST))
    for version in runs.CORES:
        locked = (ROOT / f"requirements/core-{version}.txt").read_text()
        assert re.search(rf"^ansible-core=={re.escape(version)}\.\d+ \\$", locked, re.MULTILINE), version


def test_documents_name_the_newest_that_is_tested() -> None:
    assert f"up to {list(runs.CORES)[-1]}" in (ROOT / "README.md").read_text()


def test_pythons_of_nodes_are_those_that_modules_take() -> None:
    assert pythons.OLDEST == python_version.OLDEST
    assert all(version >= pythons.OLDEST for version in pythons.of_nodes())
    assert pythons.of_nodes().items() <= pythons.found().items()


def test_tests_of_the_controller_are_told_from_those_of_nodes() -> None:
    told = {path.name for path in nodes.controller_tests()}
    assert "test_node_audit.py" not in told and "test_python_environment.py" not in told
    for path in nodes.controller_tests():
        assert nodes.CONTROLLER.search((ROOT / path).read_text())


@pytest.mark.parametrize("text", ["2.16", "2.17,2.99", "", ","])
def test_an_unknown_core_is_refused(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.parser().parse_args(["--cores", text])
    assert "some of 2.17,2.18," in capsys.readouterr().err


def test_some_or_none_are_chosen_by_their_names() -> None:
    options = command.parser().parse_args(["--cores", "2.21,2.17", "--nodes", "none"])
    assert (options.cores, options.nodes) == (["2.21", "2.17"], [])
    assert command.parser().parse_args([]).nodes == list(pythons.of_nodes())
