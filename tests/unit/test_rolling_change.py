"""upgrade.yml runs its plays in order: its own plays, with stubs for reading nodes, locking and changing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.tests.unit.playbook_run import NOWHERE, ROOT, Run, playbook


def fact(**values: Any) -> dict[str, Any]:
    """A task that sets them."""
    return {"name": "Set", "ansible.builtin.set_fact": values}


#: The stubs. A host's `wrong` says where it fails, `due` whether it needs a change, `out` whether it is drained.
STUBS: dict[str, list[dict[str, Any]]] = {
    "fleet": [
        {**fact(audit_report={"nodes": {}, "status": "ok"}), "run_once": True},
        {**fact(xpu_audit={"layers": {}}), "when": "wrong != 'look'"},
        {**fact(xpu_audit={"reason": "not reached"}), "when": "wrong == 'look'"},
    ],
    "upgrade_choose": [
        {"name": "Check", "ansible.builtin.fail": {"msg": "refused"}, "when": "wrong == 'checks'"},
        fact(
            xpu_due="{{ ['service'] if due else [] }}",
            upgrade_drained="{{ out }}",
            upgrade_failed_before="{{ out }}",
            inference_endpoints={"model": "m{{ inventory_hostname }}", "instances": 1},
        ),
        {
            "name": "Choose",
            "ansible.builtin.group_by": {"key": "xpu_nodes_due"},
            "changed_when": False,
            "when": "due or out",
        },
    ],
    "upgrade_lock": [
        {"name": "Lock", "ansible.builtin.fail": {"msg": "alice has it"}, "when": "locked | default(false)"},
        {**fact(upgrade_lock={"run": "r"}), "run_once": True},
    ],
    "upgrade_leftover": [{"name": "Look", "ansible.builtin.debug": {"msg": "looked for a lock"}, "run_once": True}],
    "upgrade_renew": [{"name": "Renew", "ansible.builtin.debug": {"msg": "renewed"}, "run_once": True}],
    "upgrade_release": [{"name": "Release", "ansible.builtin.debug": {"msg": "released"}, "run_once": True}],
    "upgrade_node": [
        fact(
            upgrade_failed="{{ 'gate: no answer' if wrong == 'gate' else omit }}",
            upgrade_out=True,
            upgrade_done="{{ omit if wrong == 'gate' else true }}",
        ),
    ],
}


@pytest.fixture
def upgrade(tmp_path: Path) -> Callable[..., Run]:
    """Run upgrade.yml over hosts, each with where it fails: "" for nowhere, "out" for drained, None for in order."""
    shutil.copytree(ROOT / "playbooks/vars", tmp_path / "vars")
    shutil.copy(ROOT / "playbooks/upgrade.yml", tmp_path)
    (tmp_path / "tasks").mkdir()
    for name, tasks in STUBS.items():
        (tmp_path / f"tasks/{name}.yml").write_text(yaml.safe_dump([{**task, "tags": ["always"]} for task in tasks]))

    def run(hosts: dict[str, str | None], variables: dict[str, Any], *arguments: str) -> Run:
        of_host = {
            name: {"wrong": wrong or "", "due": wrong is not None, "out": "out" in (wrong or "")}
            for name, wrong in hosts.items()
        }
        listed = {"all": {"vars": {**NOWHERE, **variables}, "hosts": of_host}}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(listed, sort_keys=False))
        return playbook(str(tmp_path / "upgrade"), "-i", str(tmp_path / "hosts.yml"), *arguments)

    return run


YES = {"xpu_upgrade_confirmed": True}


def test_drained_nodes_a_canary_and_batches_go_one_after_the_other(upgrade: Callable[..., Run]) -> None:
    run = upgrade({"a": "", "b": None, "c": "out", "d": "", "e": "", "f": "look", "g": "checks"}, YES)
    assert run.status == 2, run.output
    said = [line.partition('"msg": "')[2] for line in run.output.splitlines() if "nodes went before" in line]
    assert [line.partition(".")[0] for line in said] == ["c", "a", "d", "e"]
    assert run.output.count("renewed") == 4 and run.output.count("released") == 1 and "looked" not in run.output
    for words in ('"a: done"', '"c: done"', '"canary: a"', '"first, already drained: c"'):
        assert words in run.output
    # Unreachable or refused nodes are named and stop no others.
    assert set(run.refusals) == {"f", "g"}


def test_a_failed_canary_ends_the_run_with_its_reason_and_the_lock_is_released(upgrade: Callable[..., Run]) -> None:
    run = upgrade({"a": "gate", "b": "", "c": ""}, YES)
    assert run.status == 2
    assert "a failed (xpu_upgrade_max_fail_percentage is 0). Not changed: b, c." in run.text
    assert '"a: failed, it stays drained: gate: no answer"' in run.output and '"b: left as it is"' in run.output
    assert run.output.count("released") == 1


def test_a_share_of_failures_is_borne_and_the_status_tells(upgrade: Callable[..., Run]) -> None:
    run = upgrade({"a": "gate", "b": "", "c": ""}, {**YES, "xpu_upgrade_max_fail_percentage": 40})
    assert run.status == 2 and '"c: done"' in run.output


@pytest.mark.parametrize(
    ("variables", "arguments", "status", "words"),
    [
        ({}, (), 2, "No answer yes, so nothing was changed."),
        ({}, ("--check",), 0, "canary: a"),
        ({**YES, "locked": True}, (), 2, "alice has it"),
        ({**YES, "xpu_upgrade_limits": {"rack": 1}}, (), 2, "xpu_upgrade_limits names rack, which is not a group."),
    ],
)
def test_nothing_begins_without_consent_and_the_lock(
    upgrade: Callable[..., Run], variables: dict[str, Any], arguments: tuple[str, ...], status: int, words: str
) -> None:
    run = upgrade({"a": "", "b": ""}, variables, *arguments)
    assert (run.status, "renewed" in run.output) == (status, False), run.output
    assert words in run.text


def test_a_fleet_in_order_is_left_alone(upgrade: Callable[..., Run]) -> None:
    run = upgrade({"a": None, "b": None}, YES)
    assert run.status == 0 and "released" not in run.output and "WARNING" not in run.output
    assert run.output.count("looked for a lock") == 1
