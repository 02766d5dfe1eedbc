"""A package is zipped on the controller and copied once."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.tests.unit.plugins.support.action_run import run_action


def test_an_archive_is_written_once(tmp_path: Path) -> None:
    package, dest = tmp_path / "src/tool", tmp_path / "tool.pyz"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text("print('hello')\n")
    options: dict[str, Any] = {"src": str(tmp_path / "src"), "package": "tool", "dest": str(dest), "mode": "0644"}
    assert run_action("zipapp", tmp_path, check=True, **options)["changed"] and not dest.exists()
    assert run_action("zipapp", tmp_path, **options)["changed"]
    assert "tool/__main__.py" in zipfile.ZipFile(dest).namelist()
    assert not run_action("zipapp", tmp_path, **options)["changed"]


def test_options_that_are_none_are_named(tmp_path: Path) -> None:
    assert "zipapp has no option source" in run_action("zipapp", tmp_path, source="x", dest="y")["msg"]
    assert "zipapp needs src" in run_action("zipapp", tmp_path, dest="y")["msg"]
