"""Packages return to their former state, and no others are removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.packages.record import PackageState, Record
from ansible_collections.xpu.fleet.plugins.modules.package_restore import marks, merge, nearest, plan_for
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import apt_locked, run_module
from ansible_collections.xpu.fleet.tests.unit.plugins.support.packages import Packages

BEFORE: dict[str, dict[str, Any]] = {
    "ssh": {"version": "1", "manual": True, "depends": ["libssl"]},
    "libssl": {"version": "3", "manual": False},
    "mesa": {"version": "22", "manual": False, "held": True},
    "libdrm": {"version": "2.4", "manual": False},
    "desktop": {"version": "5", "manual": True, "depends": ["mesa", "libdrm"]},
}


@pytest.fixture
def node(tmp_path: Path) -> Packages:
    """A node on which a driver was installed, with a library, and which moved two packages that were there."""
    node = Packages(tmp_path, **BEFORE)
    node.offer(mesa=["23", "22"], libdrm=["2.4"])
    run_module(
        "package_record", path=node.path, record="driver", packages=["driver", "mesa"], directory=str(node.records)
    )
    node.change(
        driver={"version": "1", "manual": True, "held": True, "depends": ["libigc"]},
        libigc={"version": "1", "manual": False},
        mesa={"version": "intel", "manual": True, "held": True},
        libdrm={"version": "2.5", "manual": False},
    )
    run_module("package_record", path=node.path, record="driver", state="after", directory=str(node.records))
    return node


def restore(node: Packages, *layers: str, check: bool = False, **more: Any) -> dict[str, Any]:
    """Run the module."""
    wanted = list(layers) or ["driver"]
    at: dict[str, Any] = {"path": node.path, "at": node.records.parent, "directory": str(node.records)}
    return run_module("package_restore", check=check, record=wanted, **at, **more)


def plain(packages: dict[str, dict[str, Any]]) -> dict[str, tuple[str, bool, bool]]:
    """Packages with version and marks alone."""
    return {
        name: (entry["version"], bool(entry.get("manual")), bool(entry.get("held"))) for name, entry in packages.items()
    }


def test_everything_is_as_it_was(node: Packages) -> None:
    result = restore(node)
    assert result["changed"] and result["notes"] == []
    assert result["removed"] == ["driver", "libigc"]
    assert result["installed"] == ["libdrm=2.4", "mesa=22"]
    assert plain(node.installed) == plain(BEFORE)
    assert not (node.records / "driver.json").exists()


def test_all_of_it_is_one_transaction(node: Packages) -> None:
    restore(node)
    calls = [call for call in node.read()["calls"] if "--simulate" not in call]
    assert len(calls) == 1
    assert {"--allow-downgrades", "--allow-change-held-packages", "-oDPkg::Lock::Timeout=600"} <= set(calls[0])


def test_check_mode_tells_and_changes_nothing(node: Packages) -> None:
    before = node.installed
    foreseen = restore(node, check=True)
    assert foreseen["changed"] and foreseen["removed"] == ["driver", "libigc"]
    assert "mesa: intel manual held\n" in foreseen["diff"]["before"]
    assert "mesa: 22 auto held\n" in foreseen["diff"]["after"]
    assert node.installed == before and (node.records / "driver.json").exists()


def test_a_second_run_says_that_there_is_no_record(node: Packages) -> None:
    restore(node)
    again = restore(node)
    assert not again["changed"] and again["recorded"] == []
    assert again["notes"] == ["There is no rollback record driver: its packages stay."]


def test_a_library_that_something_else_needs_by_now_stays(node: Packages) -> None:
    node.change(player={"version": "1", "manual": True, "depends": ["libigc"]})
    assert restore(node)["removed"] == ["driver"]
    assert "libigc" in node.installed


def test_a_library_that_a_person_asked_for_stays(node: Packages) -> None:
    node.change(libigc={"version": "1", "manual": True})
    assert restore(node)["removed"] == ["driver"]


def test_it_is_refused_where_something_else_would_go(node: Packages) -> None:
    node.change(toolkit={"version": "1", "manual": True, "depends": ["driver"]})
    before = node.installed
    result = restore(node)
    assert result["failed"] and "would also remove toolkit" in result["msg"]
    assert node.installed == before and (node.records / "driver.json").exists()


def test_layers_together_are_judged_together(node: Packages) -> None:
    run_module("package_record", path=node.path, record="oneapi", packages=["toolkit"], directory=str(node.records))
    node.change(toolkit={"version": "1", "manual": True, "depends": ["driver"]})
    run_module("package_record", path=node.path, record="oneapi", state="after", directory=str(node.records))
    result = restore(node, "oneapi", "driver")
    assert result["removed"] == ["driver", "toolkit", "libigc"]
    assert plain(node.installed) == plain(BEFORE)


def test_a_run_that_was_cut_off_is_finished_by_the_next(node: Packages) -> None:
    node.write({**node.read(), "broken": True})
    assert "returned an error code" in restore(node)["msg"]
    node.write({**node.read(), "broken": False})
    node.change(driver=None)
    assert restore(node)["changed"]
    assert plain(node.installed) == plain(BEFORE)


def test_marks_wait_for_others_that_install_packages(node: Packages) -> None:
    with apt_locked(node.records.parent):
        assert "another program has been installing packages for 1 s" in restore(node, lock_timeout=1)["msg"]
    assert restore(node)["changed"]


def test_a_version_that_is_gone_is_replaced_and_said(node: Packages) -> None:
    node.offer(mesa=["24", "23"])
    result = restore(node)
    assert result["installed"] == ["mesa=23"]
    assert result["notes"] == [
        "libdrm was 2.4, which no repository offers now; it stays as it is (2.5 auto).",
        "mesa was 22, which no repository offers now; it comes at 23.",
    ]


def test_a_package_that_would_bring_an_unknown_kernel_is_left_alone(node: Packages) -> None:
    node.offer(mesa=["24"], libdrm=["2.4"])
    node.write({**node.read(), "brings": {"mesa": ["libx", "linux-image-6.8.0-50-generic"], "libdrm": []}})
    foreseen = restore(node, check=True)
    result = restore(node)
    assert result["installed"] == foreseen["installed"] == ["libdrm=2.4"]
    assert result["notes"] == [
        "mesa was 22, which no repository offers now; version 24 would also install linux-image-6.8.0-50-generic, so "
        "it stays as it is (intel manual held)."
    ]


def test_a_kernel_that_was_there_may_come_back(node: Packages) -> None:
    node.offer(mesa=["24"], libdrm=["2.4"])
    node.change(**{"linux-image-6.8.0-50-generic": {"version": "6.8", "manual": True}})
    node.write({**node.read(), "brings": {"mesa": ["linux-image-6.8.0-50-generic"]}})
    assert "mesa=24" in restore(node)["installed"]


def test_a_package_that_was_removed_comes_back(node: Packages) -> None:
    node.change(desktop=None, mesa=None, libdrm=None)
    assert restore(node)["installed"] == ["libdrm=2.4", "mesa=22"]
    assert plain(node.installed)["mesa"] == ("22", False, True)


def test_settings_that_were_left_are_purged_unless_they_were_there() -> None:
    found = {"new": PackageState(), "old": PackageState(settings=True)}
    assert plan_for(found, {"new": PackageState(settings=True), "old": PackageState(settings=True)}, {}).remove == [
        "new"
    ]


def test_the_first_of_several_layers_knows_best() -> None:
    later, first = Record({"gawk": PackageState("5")}), Record({"gawk": PackageState()})
    assert merge([later, first], {})["gawk"] == PackageState()


def test_marks_are_compared_with_what_was_found() -> None:
    found = {
        "a": PackageState("1", held=True),
        "b": PackageState("1", manual=True),
        "gone": PackageState("1", held=True),
        "new": PackageState(),
    }
    now = {"a": PackageState("1", manual=True), "b": PackageState("1", held=True), "new": PackageState("1", held=True)}
    assert marks(found, now) == {"auto": ["a"], "manual": ["b"], "unhold": ["b", "new"], "hold": ["a"]}


@pytest.mark.parametrize(
    ("version", "offered", "expected"),
    [
        ("1.0", ["1.2", "1.0"], "1.0"),
        ("1.0", ["3.0", "1.10", "1.2"], "1.2"),
        ("5.0", ["1.0", "1.2"], "1.2"),
        ("1.0~rc1", ["1.0"], "1.0"),
        ("1.0", [], ""),
    ],
)
def test_the_nearest_version_is_taken(version: str, offered: list[str], expected: str) -> None:
    assert nearest(version, offered) == expected
