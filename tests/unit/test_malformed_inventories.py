"""Every mistake in an inventory's files has its one message, with file and line, and ends the run with status 2."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.plugin_utils.inventory_files import inventory_problem
from ansible_collections.xpu.fleet.tests.unit.playbook_run import ROOT, playbook

A = "all: {hosts: {a: {}}}\n"
#: Files, of which the first is the inventory, and the expected message.
MALFORMED: dict[str, tuple[dict[str, str], str]] = {
    "not there": ({}, "No inventory at hosts.yml: check the path after -i."),
    "bracket": (
        {"hosts.yml": "all:\n  hosts:\n    a: {xpu_users: [alice}\n"},
        "hosts.yml:3 is not YAML: did not find expected ',' or ']'.",
    ),
    "tab": (
        {"hosts.yml": "all:\n\thosts:\n\t\ta:\n"},
        "hosts.yml:2 is not YAML: found character that cannot start any token.",
    ),
    "indentation": (
        {"hosts.yml": "all:\n  hosts:\n   a:\n    b: c\n  d\n"},
        "hosts.yml:6 is not YAML: could not find expected ':'.",
    ),
    "list": ({"hosts.yml": "- a\n- b\n"}, "hosts.yml:1: write an inventory as a mapping of groups (all: ...)."),
    "text": ({"hosts.yml": "a, b\n"}, "hosts.yml:1: write an inventory as a mapping of groups (all: ...)."),
    "binary": ({"hosts.yml": "\x00\x01"}, "hosts.yml is not YAML: it has control characters."),
    "group is a list": (
        {"hosts.yml": "arc:\n- a\n"},
        "hosts.yml:2: group arc is a mapping of hosts, vars and children.",
    ),
    "hosts are a list": (
        {"hosts.yml": "all:\n  hosts: [a, b]\n"},
        "hosts.yml:2: hosts of group all is a mapping, each with a colon behind its name.",
    ),
    "hosts are a text": (
        {"hosts.yml": "all:\n  hosts: a\n"},
        "hosts.yml:2: hosts of group all is a mapping, each with a colon behind its name.",
    ),
    "children are a list": (
        {"hosts.yml": "all:\n  children: [arc]\n"},
        "hosts.yml:2: children of group all is a mapping, each with a colon behind its name.",
    ),
    "vars are a list": (
        {"hosts.yml": "all:\n  hosts: {a: }\n  vars:\n  - xpu_users: [alice]\n"},
        "hosts.yml:4: vars of group all is a mapping, each as name: value.",
    ),
    "host is an address": (
        {"hosts.yml": "all:\n  hosts:\n    a: 192.0.2.1\n"},
        "hosts.yml:3: host a is a mapping of its variables, such as ansible_host: ADDRESS.",
    ),
    "key misspelt": (
        {"hosts.yml": "all:\n  host: {a: {}}\n"},
        "hosts.yml:2: group all takes only hosts, vars and children, not host. Write variables under vars.",
    ),
    "variable beside hosts": (
        {"hosts.yml": "all:\n  children:\n    arc:\n      hosts: {a: }\n      xpu_users: [alice]\n"},
        "hosts.yml:5: group arc takes only hosts, vars and children, not xpu_users. Write variables under vars.",
    ),
    "host twice": (
        {"hosts.yml": "all:\n  hosts:\n    a: {xpu_reboot: never}\n    a: {}\n"},
        "hosts.yml:4: a is set twice, first in line 3.",
    ),
    "variable twice": (
        {"hosts.yml": A, "group_vars/all.yml": "xpu_reboot: never\nxpu_stack: cpu\nxpu_reboot: allowed\n"},
        "group_vars/all.yml:3: xpu_reboot is set twice, first in line 1.",
    ),
    "JSON": (
        {"hosts.json": '{"all": {"hosts": {"a": {}}'},
        "hosts.json:2 is not YAML: did not find expected ',' or '}'.",
    ),
    "INI section": (
        {"hosts.ini": "[arc\na\n"},
        "hosts.ini:1: [arc is not a section: write [group], [group:vars] or [group:children].",
    ),
    "INI kind": (
        {"hosts": "a\n[arc:vrs]\n"},
        "hosts:2: [arc:vrs] is not a section: write vars or children after the colon.",
    ),
    "INI quote": ({"hosts": "a ansible_host='192.0.2.1\n"}, "hosts:1: a quotation mark is not closed."),
    "INI variable": (
        {"hosts": "[arc]\na\n[arc:vars]\nxpu_users\n"},
        "hosts:4: xpu_users is not a variable: write name=value.",
    ),
    "INI blanks": (
        {"hosts": "a xpu_users=alice bob\n"},
        "hosts:1: bob is not a variable: write name=value, in quotes if it has spaces.",
    ),
    "INI group": ({"hosts": "a\n[arc:vars]\nxpu_users=alice\n"}, "hosts:2: unknown group arc."),
    "variables are a list": (
        {"hosts.yml": A, "group_vars/all.yml": "- xpu_users\n"},
        "group_vars/all.yml:1: write variables as a mapping (name: value).",
    ),
    "variables without a colon": (
        {"hosts.yml": A, "host_vars/a/main.yml": "xpu_users alice\n"},
        "host_vars/a/main.yml:1: write variables as a mapping (name: value).",
    ),
    "variables are no YAML": (
        {"hosts.yml": A, "group_vars/all": "xpu_users: [alice\n"},
        "group_vars/all:2 is not YAML: did not find expected ',' or ']'.",
    ),
}
#: Files that are well, of many kinds.
WELL: dict[str, dict[str, str]] = {
    "empty groups": {"hosts.yml": "all:\n  hosts:\n    a:\n  children:\n    arc:\n  vars:\n"},
    "tags": {
        "hosts.yml": "all:\n  vars:\n    model_token: !vault |\n      $ANSIBLE_VAULT;1.1\n    other: !unsafe '{{'\n"
    },
    "merged": {"hosts.yml": "all:\n  hosts:\n    a: &a {x: 1}\n    b: {<<: *a, x: 2}\n"},
    "plugin": {"hosts.yml": "plugin: ansible.builtin.constructed\nkeyed_groups: []\n"},
    "vault": {"hosts.yml": A, "group_vars/all.yml": "$ANSIBLE_VAULT;1.1;AES256\n6162\n"},
    "JSON": {"hosts.json": '{"all": {"hosts": {"a": {"xpu_users": ["alice"]}}}}'},
    "INI": {
        "hosts": "# fleet\na ansible_host=192.0.2.1 xpu_users=\"['alice']\" # one\n\n[arc]\nb[1:3]\n"
        "[arc:vars]\nxpu_users = alice\n[all:vars]\nxpu_reboot=never\n[most:children]\narc\n[most:vars]\nx=\n"
    },
    "others beside it": {"hosts.yml": A, "group_vars/README.md": "# [", "host_vars/.a.swp": "\x00"},
}


def written(folder: Path, files: dict[str, str]) -> str:
    """Write the files; return the inventory's name."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return next(iter(files), "hosts.yml")


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_inventory_has_one_message(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, said = MALFORMED[case]
    monkeypatch.chdir(tmp_path)
    assert inventory_problem([written(tmp_path, files)]) == said


@pytest.mark.parametrize("case", WELL)
def test_an_inventory_that_is_well_has_none(case: str, tmp_path: Path) -> None:
    assert inventory_problem([str(tmp_path / written(tmp_path, WELL[case]))]) == ""


def test_all_files_of_a_folder_are_read_and_scripts_and_lists_left_alone(tmp_path: Path) -> None:
    written(tmp_path, {"one.yml": A, "two.yml": "- a\n"})
    assert (
        inventory_problem(["a,b", str(tmp_path)])
        == f"{tmp_path}/two.yml:1: write an inventory as a mapping of groups (all: ...)."
    )
    (tmp_path / "two.yml").chmod(0o755)
    assert inventory_problem(["a,b", str(tmp_path)]) == ""


@pytest.mark.parametrize(
    "folder", ["inventories/example", "inventories/demo", "inventories/demo_fleet", "molecule/default/inventory"]
)
def test_our_own_inventories_are_well(folder: str) -> None:
    assert inventory_problem([str(ROOT / folder)]) == ""


@pytest.mark.parametrize("case", ["variable beside hosts", "INI group", "variables are no YAML", "not there"])
def test_site_ends_with_it_before_it_begins(case: str, tmp_path: Path) -> None:
    files, said = MALFORMED[case]
    run = playbook("site", "-i", written(tmp_path, files), where=tmp_path)
    assert run.status == 2, run.output
    assert run.output.rstrip().endswith(said)
    assert "TASK" not in run.output


def test_an_inventory_without_hosts_says_so(tmp_path: Path) -> None:
    run = playbook("site", "-i", written(tmp_path, {"hosts.yml": "all:\n"}), where=tmp_path)
    assert run.status == 2, run.output
    assert "The inventory has no host." in run.output


def test_a_group_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    files = {"hosts.yml": "all: {children: {arc: {hosts: {a: }}}}\n"}
    run = playbook("site", "-i", written(tmp_path, files), "-e", "xpu_hosts=acr", where=tmp_path)
    assert run.status == 2, run.output
    assert "No host matches xpu_hosts ('acr'). Groups of the inventory: all, arc." in run.text


def test_there_are_twenty_of_them() -> None:
    assert len(MALFORMED) >= 20
