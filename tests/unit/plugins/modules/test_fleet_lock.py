"""Only one run holds the lock of a fleet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.system.lock import LockError, read, release, take
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module


def lock(run: str, seen: str = "1") -> dict[str, str]:
    """What a run says."""
    return {"run": run, "owner": "alice", "host": "desk", "purpose": "driver", "since": seen, "seen": seen}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state/upgrade.lock"


def run(path: Path, state: str, mine: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    """Run the module."""
    return run_module("fleet_lock", state=state, lock=mine or {}, file=str(path), **options)


def test_one_run_has_it_until_it_is_released(path: Path) -> None:
    assert run(path, "taken", lock("r1"))["found"] == {}
    assert read(path)["run"] == "r1"
    refused = run(path, "taken", lock("r2"))
    assert refused["failed"] and refused["found"]["run"] == "r1" and "alice on desk" in refused["msg"]
    assert not run(path, "released", lock("r2"))["changed"]
    assert run(path, "unchanged")["found"]["run"] == "r1"
    assert run(path, "released", lock("r1"))["changed"]
    assert run(path, "taken", lock("r2"))["found"] == {}


def test_a_run_that_says_that_it_is_alive_has_it_since_its_beginning(path: Path) -> None:
    take(path, lock("r1", "1"))
    take(path, lock("r1", "2"))
    found = read(path)
    assert (found["since"], found["seen"]) == ("1", "2")


def test_only_the_run_that_is_named_is_replaced(path: Path) -> None:
    take(path, lock("r1"))
    with pytest.raises(LockError):
        take(path, lock("r3"), "r2")
    assert take(path, lock("r3"), "r1")["run"] == "r1"
    assert not release(path, "r1") and read(path)["run"] == "r3"


@pytest.mark.parametrize("content", ["", "{", "[]", '"r1"', json.dumps({"owner": "x"}), "\0" * 40])
def test_half_a_lock_is_nobodys(path: Path, content: str) -> None:
    path.parent.mkdir()
    path.write_text(content)
    assert read(path) == {}
    take(path, lock("r1"))
    assert read(path)["run"] == "r1"


def test_check_mode_takes_nothing(path: Path) -> None:
    found = run_module("fleet_lock", check=True, state="taken", lock=lock("r1"), path=str(path))
    assert found["changed"] and not path.exists()
