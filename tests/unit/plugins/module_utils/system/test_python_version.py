"""An unsupported Python of a node is refused in one sentence, by the first module that runs there."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import yaml
from ansible_collections.xpu.fleet.plugins.module_utils.system import python_version
from ansible_collections.xpu.fleet.plugins.module_utils.system.python_version import OLDEST, refusal

ROOT = Path(__file__).resolve().parents[5]


@pytest.mark.parametrize("version", [(3, 8, 18), (3, 6), (2, 7, 18)])
def test_an_older_python_is_refused_by_its_name(version: tuple[int, ...]) -> None:
    assert refusal(version, "/usr/bin/python3") == (
        f"This node's Python is {version[0]}.{version[1]} (/usr/bin/python3), and xpu.fleet needs 3.9 or newer: "
        "set ansible_python_interpreter."
    )


@pytest.mark.parametrize("version", [OLDEST, (3, 13, 1), (3, 14), (4, 0)])
def test_the_oldest_and_newer_ones_are_taken(version: tuple[int, ...]) -> None:
    assert refusal(version) == ""


@pytest.mark.parametrize("module", ["gpu_info", "dpkg_repair"])
def test_the_first_module_of_a_run_asks_before_anything_else(module: str) -> None:
    tree = ast.parse((ROOT / f"plugins/modules/{module}.py").read_text())
    imports = [node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.module != "__future__"]
    calls = [node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)]
    assert imports[0] == "ansible_collections.xpu.fleet.plugins.module_utils.system.python_version"
    (call,) = calls
    second = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))][2]
    assert ast.unparse(call) == "require_python()" and call.lineno < second.lineno


def test_the_module_ends_with_the_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(python_version, "refusal", lambda: "Too old.")
    with pytest.raises(SystemExit) as ended:
        python_version.require_python()
    assert ended.value.code == 1
    assert json.loads(capsys.readouterr().out) == {"failed": True, "msg": "Too old."}


def test_documents_promise_the_same() -> None:
    assert f"Python {OLDEST[0]}.{OLDEST[1]} or newer on the nodes" in " ".join((ROOT / "README.md").read_text().split())
    tasks = yaml.safe_load((ROOT / "playbooks/rollback.yml").read_text())[0]["tasks"]
    # The check of variables runs on the controller: the first that a node runs is what asks for its Python.
    first = next(task for task in tasks if "xpu.fleet.variable_types" not in task)
    assert "xpu.fleet.dpkg_repair" in first
