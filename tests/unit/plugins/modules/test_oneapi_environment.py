"""The exports of setvars.sh are written once, as an environment file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "one api/setvars.sh"
    path.parent.mkdir()
    path.write_text('export MKLROOT="$(dirname "${BASH_SOURCE[0]}")/mkl/latest"\n')
    return path


def test_the_module_writes_once(script: Path, tmp_path: Path) -> None:
    dest = tmp_path / "etc/xpuserve/oneapi.env"
    options: dict[str, Any] = {"script": str(script), "dest": str(dest)}
    foreseen = run_module("oneapi_environment", check=True, **options)
    assert foreseen["changed"] and "MKLROOT=" in foreseen["diff"]["after"] and not dest.exists()
    assert run_module("oneapi_environment", **options)["changed"]
    assert dest.read_text() == foreseen["diff"]["after"] and dest.stat().st_mode & 0o777 == 0o644
    assert not run_module("oneapi_environment", **options)["changed"]
    assert not run_module("oneapi_environment", check=True, **options)["changed"]


def test_the_module_says_that_the_script_is_not_there(tmp_path: Path) -> None:
    result = run_module("oneapi_environment", script=str(tmp_path / "setvars.sh"))
    assert result["failed"] and "setvars.sh is missing" in result["msg"]
