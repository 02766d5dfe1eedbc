"""The state of packages is recorded once, before they change, with packages that come along."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module
from ansible_collections.xpu.fleet.tests.unit.plugins.support.packages import Packages


@pytest.fixture
def node(tmp_path: Path) -> Packages:
    return Packages(
        tmp_path,
        udev={"version": "252", "manual": True},
        libgbm1={"version": "22", "held": True},
        libdrm2={"version": "2.4"},
        **{"libc6:i386": {"version": "2.36"}},
        **{"old": {"version": ""}},
    )


def record(node: Packages, *packages: str, **options: Any) -> dict[str, Any]:
    """Run the module for record driver."""
    return run_module(
        "package_record",
        path=node.path,
        record="driver",
        packages=list(packages),
        directory=str(node.records),
        **options,
    )


def test_packages_are_written_down_with_version_and_marks(node: Packages) -> None:
    assert record(node, "udev", "libgbm1", "awk", "libc6:i386", "old")["changed"]
    absent = {"version": "", "held": False, "manual": False}
    assert node.record("driver")["packages"] == {
        "udev": {"version": "252", "held": False, "manual": True},
        "libgbm1": {"version": "22", "held": True, "manual": False},
        "awk": absent,  # no package has this name: nothing will be done about it
        "libc6:i386": {"version": "2.36", "held": False, "manual": False},
        "old": {**absent, "settings": True},
    }


def test_check_mode_writes_nothing(node: Packages) -> None:
    foreseen = record(node, "udev", check=True)
    assert foreseen["added"] == ["udev"] and "udev: 252 manual" in foreseen["diff"]["after"]
    assert not node.records.exists()


def test_what_is_written_down_stays_and_more_is_added(node: Packages) -> None:
    record(node, "udev")
    node.change(udev={"version": "999", "manual": True}, level_zero={"version": "1", "manual": True})
    assert record(node, "udev", "level_zero")["added"] == ["level_zero"]
    packages = node.record("driver")["packages"]
    assert packages["udev"]["version"] == "252" and packages["level_zero"]["version"] == "1"
    assert not record(node, "udev", "level_zero")["changed"]


def test_what_came_along_is_added_afterwards(node: Packages) -> None:
    record(node, "udev")
    node.change(udev={"version": "999"}, libdrm2={"version": "2.5"}, libigc1={"version": "1"}, libgbm1=None)
    assert record(node, state="after")["added"] == ["libdrm2", "libgbm1", "libigc1"]
    found = node.record("driver")
    assert "before" not in found
    assert found["packages"]["libdrm2"] == {"version": "2.4", "held": False, "manual": False, "along": True}
    assert found["packages"]["libigc1"] == {"version": "", "held": False, "manual": False, "along": True}
    assert found["packages"]["libgbm1"]["version"] == "22" and found["packages"]["udev"]["version"] == "252"
    assert not record(node, state="after")["changed"]


def test_after_a_run_that_was_cut_off_only_new_dependencies_count(node: Packages) -> None:
    record(node, "udev")
    # The run died, and a person upgraded the node and installed an editor before the next one.
    node.change(libigc1={"version": "1"}, libdrm2={"version": "2.6"}, vim={"version": "9", "manual": True})
    record(node, "udev")
    record(node, state="after")
    assert set(node.record("driver")["packages"]) == {"udev", "libigc1"}


@pytest.mark.parametrize("record_name", ["files", "../x", "A"])
def test_a_record_name_that_cannot_be_a_file_is_an_error(node: Packages, record_name: str) -> None:
    result = run_module("package_record", path=node.path, record=record_name, directory=str(node.records))
    assert result["failed"] and "cannot name a rollback record" in result["msg"]


def test_a_record_that_cannot_be_read_is_an_error_that_names_it(node: Packages) -> None:
    node.records.mkdir()
    (node.records / "driver.json").write_text("{")
    result = record(node, "udev")
    assert result["failed"] and "driver.json" in result["msg"]
