"""site.yml changes nodes in batches: its own plays, with stubs for the tasks that read or change nodes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.tests.unit.playbook_run import NOWHERE, ROOT, Run, playbook

#: The stubs. A host's variable `wrong` says where it fails, `due` whether it lacks something.
STUBS = {
    "audit": [
        {
            "name": "Find what is wrong",
            "ansible.builtin.set_fact": {
                "audit_found": {"layers": {"python": {"status": "{{ 'drift' if due else 'ok' }}"}}},
            },
        }
    ],
    "live": [{"name": "Look at clients", "ansible.builtin.fail": {"msg": "serves"}, "when": "serves | default(false)"}],
    "preflight": [{"name": "Check", "ansible.builtin.fail": {"msg": "no"}, "when": "wrong == 'checks'"}],
    "provision": [{"name": "Change", "ansible.builtin.fail": {"msg": "no"}, "when": "wrong == 'roles'"}],
    "proof": [{"name": "Prove", "ansible.builtin.fail": {"msg": "no"}, "when": "wrong == 'proof'"}],
}


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Run]:
    """Run site.yml over hosts, each with where it fails: "" for nowhere, None for a node that is in order."""
    shutil.copytree(ROOT / "playbooks/vars", tmp_path / "vars")
    shutil.copy(ROOT / "playbooks/site.yml", tmp_path)
    (tmp_path / "tasks").mkdir()
    for name, tasks in STUBS.items():
        (tmp_path / f"tasks/{name}.yml").write_text(yaml.safe_dump([{**task, "tags": ["always"]} for task in tasks]))

    def run(hosts: dict[str, str | None], variables: dict[str, Any] | None = None, *arguments: str) -> Run:
        of_host = {name: {"wrong": wrong or "", "due": wrong is not None} for name, wrong in hosts.items()}
        listed = {"all": {"vars": {**NOWHERE, **(variables or {})}, "hosts": of_host}}
        (tmp_path / "hosts.yml").write_text(yaml.safe_dump(listed, sort_keys=False))
        return playbook(str(tmp_path / "site"), "-i", str(tmp_path / "hosts.yml"), *arguments)

    return run


def batches(run: Run) -> list[list[str]]:
    """The hosts of each batch that began."""
    words = [line.partition('"msg": "')[2].split(": ")[0] for line in run.output.splitlines() if "(xpu_reboot)" in line]
    return [word.split(", ") for word in words]


def fleet(number: int) -> dict[str, str | None]:
    """Nodes that all lack something."""
    return {f"n{i:03}": "" for i in range(number)}


def test_three_nodes_are_changed_one_after_the_other(site: Callable[..., Run]) -> None:
    run = site(fleet(3))
    assert run.status == 0, run.output
    assert batches(run) == [["n000"], ["n001"], ["n002"]]
    assert "n001: each may reboot (xpu_reboot). 1 of 3 nodes went before (xpu_serial)." in run.text


def test_a_large_fleet_is_changed_by_quarters_after_the_first(site: Callable[..., Run]) -> None:
    assert list(map(len, batches(site(fleet(8), None, "--check")))) == [1, 2, 2, 2, 1]


@pytest.mark.parametrize(("serial", "sizes"), [("100%", [4]), ("1, 2", [1, 2, 1]), ([3], [3, 1])])
def test_the_inventory_says_how_many_at_a_time(site: Callable[..., Run], serial: Any, sizes: list[int]) -> None:
    run = site(fleet(4), {"xpu_serial": serial, "xpu_reboot": "never"})
    assert list(map(len, batches(run))) == sizes
    assert "none reboots (xpu_reboot)" in run.text


def test_nodes_in_order_are_in_no_batch(site: Callable[..., Run]) -> None:
    run = site({"a": None, "b": "", "c": None, "d": ""})
    assert (run.status, batches(run)) == (0, [["b"], ["d"]])
    converged = site({"a": None, "b": None})
    assert (converged.status, batches(converged)) == (0, [])
    assert "WARNING" not in converged.output


def test_a_node_that_is_refused_stops_no_other(site: Callable[..., Run]) -> None:
    run = site({"a": "checks", "b": "", "c": ""})
    assert (run.status, batches(run)) == (2, [["b"], ["c"]])
    assert set(run.refusals) == {"a"}


@pytest.mark.parametrize("where", ["roles", "proof"])
def test_no_batch_begins_after_one_in_which_a_node_failed(site: Callable[..., Run], where: str) -> None:
    run = site({"a": "", "b": "", "c": where, "d": "", "e": ""}, {"xpu_serial": "2"})
    assert run.status == 2
    # The other node of the batch is not left halfway.
    assert batches(run) == [["a", "b"], ["c", "d"]]
    assert set(run.refusals) == {"c"}
    assert "c failed. These nodes were not changed: e. Repair what failed, then run this again." in run.text
    recap = run.output.rpartition("PLAY RECAP")[2]
    assert "e  " in recap and recap.count("failed=1") == 1


def test_nothing_begins_where_the_first_node_fails(site: Callable[..., Run]) -> None:
    run = site({"a": "roles", "b": "", "c": ""})
    assert (run.status, batches(run), set(run.refusals)) == (2, [["a"]], {"a"})


@pytest.mark.parametrize(
    ("serial", "wrong", "begun"),
    [(None, [], "abcde"), (None, ["a"], "a"), ("2", ["c"], "abcd"), ("100%", ["c"], "abcde")],
)
def test_a_rollback_goes_in_batches_too(tmp_path: Path, serial: str | None, wrong: list[str], begun: str) -> None:
    """Its plays, with a stub for the tasks of the one that takes layers away."""
    first, play = yaml.safe_load((ROOT / "playbooks/rollback.yml").read_text())
    first |= {"hosts": "all", "tasks": []}
    play |= {
        "tasks": [
            {"name": "Begin", "ansible.builtin.debug": {"msg": "begin {{ inventory_hostname }}"}},
            {"name": "Change", "ansible.builtin.fail": {"msg": "no"}, "when": "inventory_hostname in wrong"},
        ],
        "gather_facts": False,
        "become": False,
    }
    (tmp_path / "rollback.yml").write_text(yaml.safe_dump([first, play]))
    variables = NOWHERE | {"wrong": wrong} | ({"xpu_serial": serial} if serial else {})
    listed = {"all": {"vars": variables, "hosts": dict.fromkeys("abcde")}}
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump(listed, sort_keys=False))
    run = playbook(str(tmp_path / "rollback"), "-i", str(tmp_path / "hosts.yml"))
    assert [name for name in "abcde" if f"begin {name}" in run.output] == list(begun), run.output
    assert run.status == (2 if wrong else 0)


@pytest.mark.parametrize(
    ("variables", "refused"),
    [({}, True), ({"xpu_live": "restart"}, False), ({"xpu_gateways": "nobody"}, False)],
)
def test_a_node_that_serves_behind_gateways_is_not_restarted(
    site: Callable[..., Run], variables: dict[str, Any], refused: bool
) -> None:
    run = site({"door": None, "a": ""}, {"serves": True, "xpu_gateways": "door", **variables})
    assert (run.status, set(run.refusals), batches(run)) == ((2, {"a"}, []) if refused else (0, set(), [["a"]]))
