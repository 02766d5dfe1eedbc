"""Variables of a wrong type are refused by name, before a role runs."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.xpu.fleet.tests.unit.plugins.support.action_run import run_action


def test_variables_that_are_not_set_are_no_problem(tmp_path: Path) -> None:
    answer = run_action("variable_types", tmp_path, roles=["inference", "model"])
    assert not answer["changed"] and not answer.get("failed")


def test_a_role_that_does_not_exist_is_named(tmp_path: Path) -> None:
    assert "cuda" in run_action("variable_types", tmp_path, roles=["cuda"])["msg"]
