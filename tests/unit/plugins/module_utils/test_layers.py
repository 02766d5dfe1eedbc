"""The layers are data in one place, and files that cannot read it agree with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.plugins.module_utils.audit.audits import AUDITS
from ansible_collections.xpu.fleet.plugins.module_utils.layers import LAYERS, NAMES, ROLES
from ansible_collections.xpu.fleet.plugins.modules import node_audit

ROOT = Path(__file__).resolve().parents[4]


def roles_of(tasks: list[dict[str, Any]], kind: str) -> list[str]:
    """The roles that a list of tasks runs such tasks of, in its order."""
    keys = ("ansible.builtin.include_role", "ansible.builtin.import_role")
    included = [task[key] for task in tasks for key in keys if key in task]
    return [role["name"].removeprefix("xpu.fleet.") for role in included if role.get("tasks_from", "main") == kind]


def tasks_of(name: str) -> list[dict[str, Any]]:
    """The tasks of a file of tasks, or of all plays of a playbook."""
    content: list[dict[str, Any]] = yaml.safe_load((ROOT / "playbooks" / name).read_text())
    return [task for item in content for task in item.get("tasks", [item])]


@pytest.mark.parametrize(
    ("name", "tasks_from"),
    [("tasks/preflight.yml", "preflight"), ("tasks/provision.yml", "main")],
)
def test_playbooks_list_the_layers_roles_from_the_ground_up(name: str, tasks_from: str) -> None:
    assert [role for role in roles_of(tasks_of(name), tasks_from) if role != "stack"] == list(ROLES.values())


def test_a_rollback_lists_them_from_the_top_down() -> None:
    tasks = tasks_of("rollback.yml")
    assert roles_of(tasks, "rollback") == list(ROLES.values())[::-1]
    (asked,) = (task for task in tasks if "xpu.fleet.package_restore" in task)
    assert asked["vars"]["layers"] == [record for layer in LAYERS[::-1] for record in layer.records]


def test_every_layer_has_an_audit_and_is_documented() -> None:
    assert tuple(AUDITS) == NAMES
    choices = yaml.safe_load(node_audit.DOCUMENTATION)["options"]["layers"]["choices"]
    assert choices == list(NAMES)


def test_every_role_says_what_it_expects() -> None:
    for role in ROLES.values():
        assert f"{role}_expected" in yaml.safe_load((ROOT / "roles" / role / "vars/main.yml").read_text())


def test_every_layer_has_its_role_and_stands_above_what_it_needs() -> None:
    for index, layer in enumerate(LAYERS):
        assert (ROOT / "roles" / layer.role / "tasks/main.yml").is_file()
        assert set(layer.builds_on + layer.runs_with) <= set(NAMES[:index])
