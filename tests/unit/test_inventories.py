"""The example inventory matches its comments, and site.yml accepts it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import (
    check_shape,
)

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = "inventories/example"
FLEET = {
    "arc_workstations": ["arc1", "arc2", "arc3"],
    "flex_servers": ["flex1", "flex2"],
    "max_nodes": ["max1", "max2"],
    "gateways": ["door1", "door2"],
}


def ansible(command: str, *arguments: str, facts: Path | None = None) -> str:
    """Run one of Ansible's commands in the checkout, with a cache of facts where one is given; return its output."""
    cache = {"CACHE_PLUGIN": "ansible.builtin.jsonfile", "CACHE_PLUGIN_CONNECTION": str(facts)} if facts else {}
    result = subprocess.run(
        [command, "-i", EXAMPLE, *arguments],
        cwd=ROOT,
        env={**os.environ, **{f"ANSIBLE_{name}": value for name, value in cache.items()}},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "[WARNING]" not in result.stderr, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def password(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file with the password that the comment in vault.yml gives."""
    vault = (ROOT / EXAMPLE / "group_vars/all/vault.yml").read_text()
    words = vault.split("password of this example is: ", 1)[1].split(maxsplit=1)[0]
    path = tmp_path_factory.mktemp("vault") / "password"
    path.write_text(words)
    return str(path)


@pytest.fixture(scope="module")
def inventory(password: str) -> dict[str, Any]:
    """The inventory as Ansible reads it."""
    listed: dict[str, Any] = json.loads(ansible("ansible-inventory", "--list", "--vault-password-file", password))
    return listed


def test_the_fleet_is_mixed(inventory: dict[str, Any]) -> None:
    assert {group: inventory[group]["hosts"] for group in FLEET} == FLEET
    addresses = [host["ansible_host"] for host in inventory["_meta"]["hostvars"].values()]
    assert len(addresses) == len(set(addresses)) == 9


def test_a_machine_takes_its_own_variables_then_its_groups_then_the_fleets(inventory: dict[str, Any]) -> None:
    machines = inventory["_meta"]["hostvars"]
    assert (machines["arc1"]["xpu_users"], machines["arc2"]["xpu_users"]) == (["alice"], ["alice", "bob"])
    assert (machines["arc1"]["xpu_reboot"], machines["max1"]["xpu_reboot"]) == ("never", "allowed")
    assert (machines["arc1"]["xpu_stack"], machines["flex1"]["xpu_stack"]) == ("auto", "datacenter-682")


def test_the_token_is_encrypted_and_opens_with_the_password(password: str) -> None:
    assert "put-your-own-token-here" not in "".join(path.read_text() for path in (ROOT / EXAMPLE).rglob("*.yml"))
    show = ("-m", "ansible.builtin.debug", "-a", "var=model_token", "--vault-password-file", password)
    assert "put-your-own-token-here" in ansible("ansible", "max2", *show)


def test_overrides_have_the_shape_of_a_stack(inventory: dict[str, Any]) -> None:
    for machine in inventory["_meta"]["hostvars"].values():
        check_shape(machine.get("xpu_stack_overrides", {}), "xpu_stack_overrides")


def test_every_variable_is_one_that_a_role_reads(inventory: dict[str, Any]) -> None:
    known = "".join(path.read_text() for path in ROOT.glob("roles/*/defaults/main.yml"))
    known += "".join((ROOT / f"playbooks/{name}.yml").read_text() for name in ("site", "upgrade"))
    used = {name for machine in inventory["_meta"]["hostvars"].values() for name in machine}
    unknown = {name for name in used if not name.startswith(("ansible_", "vault_")) and name not in known}
    assert unknown == set()


def test_machines_are_grouped_by_the_gpus_that_were_found(password: str, tmp_path: Path) -> None:
    for machine, device, width in (("arc1", "56a0", 8), ("arc2", "56a0", 16), ("max1", "0bd5", 16)):
        card = tmp_path / machine / "sys/bus/pci/devices/0000:03:00.0"
        card.mkdir(parents=True)
        memory = 0x4FFFFFFFFF if machine != "arc2" else 0x400FFFFFFF
        files = {
            **{"vendor": "0x8086", "device": f"0x{device}", "class": "0x030000"},
            **{"current_link_width": str(width), "max_link_width": "16"},
            "resource": f"0x0 0x0 0x0\n0x0 0x0 0x0\n0x4000000000 {memory:#x} 0x14220c\n",
        }
        for name, text in files.items():
            (card / name).write_text(text)
    here = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "stack_root": f"{tmp_path}/{{{{ inventory_hostname }}}}",
        "xpu_gpus_become": False,
    }
    arguments = ("--vault-password-file", password, "--extra-vars", json.dumps(here), "--limit", "arc1,arc2,flex1,max1")
    ansible("ansible-playbook", "playbooks/gpus.yml", *arguments, facts=tmp_path / "facts")

    listed = json.loads(
        ansible("ansible-inventory", "--list", "--vault-password-file", password, facts=tmp_path / "facts")
    )
    groups = {
        name: listed[name]["hosts"] for name in listed if name.startswith(("gpu_", "small_", "slow_")) and listed[name]
    }
    assert groups == {
        "gpu_arc": ["arc1", "arc2"],
        "gpu_max": ["max1"],
        "gpu_none": ["flex1"],
        "small_bar": ["arc2"],
        "slow_slot": ["arc1"],
    }


def test_gpus_are_looked_at_by_root_who_alone_learns_of_firmware() -> None:
    (play,) = yaml.safe_load((ROOT / "playbooks/gpus.yml").read_text())
    assert play["become"] == "{{ xpu_gpus_become | default(true) }}"


def test_the_playbook_takes_it(password: str) -> None:
    ansible("ansible-playbook", "site.yml", "--syntax-check", "--vault-password-file", password)
