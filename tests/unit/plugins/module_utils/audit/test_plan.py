"""The plan of playbooks/plan.yml is what site.yml does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.plugins.module_utils.audit.plan import (
    fleet_plan,
    roles_of,
)
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
    ROLES,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.audit_fleet import drift, layer, node, report

ROOT = Path(__file__).resolve().parents[5]


def test_layers_have_the_roles_that_site_runs_for_them() -> None:
    provision = yaml.safe_load((ROOT / "playbooks/tasks/provision.yml").read_text())
    tasks = [task for task in provision if "tasks_from" not in task["ansible.builtin.include_role"]]
    runs = {task["when"]: task["ansible.builtin.include_role"]["name"] for task in tasks}
    assert runs == {f"'{layer}' in xpu_due": f"xpu.fleet.{role}" for layer, role in ROLES.items()}
    assert set(ROLES) == set(NAMES) - {"platform"}
    assert roles_of(["platform", "python", "service"]) == ["python_runtime", "inference"]


def test_each_role_is_told_with_its_reason() -> None:
    plan = fleet_plan(report({"a": node(), "b": node(driver=drift())}, left_out=("c",)), NAMES)
    assert (plan["exit"], plan["left_out"]) == (1, ["c"])
    assert plan["nodes"]["a"]["roles"] == []
    assert plan["nodes"]["b"]["roles"] == ["gpu_driver", "model", "inference"]
    assert plan["lines"] == [
        "b: gpu_driver: hold of x: expected held, found not held",
        "b: model: follows a layer that changes",
        "b: inference: follows a layer that changes",
    ]


def test_a_platform_is_told_though_no_role_runs_for_it() -> None:
    layers = {name: layer("not_applicable") for name in ("kernel", "driver", "oneapi")}
    plan = fleet_plan(report({"a": node(platform=drift(), **layers)}), NAMES)
    assert (plan["exit"], plan["nodes"]["a"]["roles"]) == (1, [])
    assert plan["lines"] == ["a: platform: hold of x: expected held, found not held"]


def test_only_chosen_layers_are_planned_and_force_plans_all_of_them() -> None:
    found = report({"a": node()})
    assert fleet_plan(found, ["platform", "access"])["exit"] == 0
    forced = fleet_plan(found, ["platform", "access"], force=True)
    assert (forced["exit"], forced["nodes"]["a"]["roles"]) == (1, ["render_access"])


@pytest.mark.parametrize("second", [{"reason": "No stack fits."}, None, node(python=layer("not_looked_at"))])
def test_what_could_not_be_looked_at_leaves_the_plan_open(second: dict[str, Any] | None) -> None:
    audits = {"a": node(), **({"b": second} if second else {})}
    plan = fleet_plan(report(audits, *([] if second else ["b"])), NAMES)
    assert (plan["exit"], bool(plan["lines"])) == (2, True)


def test_the_playbook_tells_it_as_json_and_by_its_status(tmp_path: Path) -> None:
    # This machine is a node that no stack fits.
    facts = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "xpu_stack": "arc-647"}
    variables = json.dumps(
        {**facts, "xpu_audit_become": False, "stack_root": str(tmp_path), "xpu_plan_json": "plan.json"}
    )
    command = ["ansible-playbook", "-i", "a,", str(ROOT / "playbooks/plan.yml"), "-e", variables]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stdout + run.stderr
    assert "a: not looked at" in run.stdout
    assert "Stack arc-647 does not fit this node" in run.stdout
    assert json.loads((tmp_path / "plan.json").read_text())["nodes"]["a"]["looked_at"] is False
