"""A misspelt variable is refused wherever it is written, by every playbook, and by a role in one's own play."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.xpu.fleet.tests.unit.playbook_run import NOWHERE, ROOT, Run, inventory, playbook

OWN = "Add a variable of your own to the list xpu_other_variables."
#: Where the variable of a host of that name is written.
SOURCES = {
    "inline": (
        "hosts.yml",
        "all:\n  hosts:\n    inline: {%s: 8001}\n    of_host:\n  children:\n    of_group: {hosts: {member: }}\n",
    ),
    "ini": ("more.ini", "ini %s=8001\n"),
    "member": ("group_vars/of_group.yml", "---\n%s: 8001\n"),
    "of_host": ("host_vars/of_host.yml", "---\n%s: 8001\n"),
}
#: Roles that only other roles call.
INNER = {"node_reboot", "pinned_packages"}


@pytest.fixture(scope="module")
def everywhere(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of site.yml with a misspelt variable in every place, and another on the command line."""
    folder = tmp_path_factory.mktemp("sources")
    for name, text in {**dict(SOURCES.values()), "group_vars/all.yml": yaml.safe_dump(NOWHERE)}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text.replace("%s", "inference_prot"))
    return playbook("site", "-i", "hosts.yml", "-i", "more.ini", "-e", "xpu_rebot=never", where=folder)


@pytest.mark.parametrize("host", SOURCES)
def test_a_misspelt_variable_is_refused_wherever_it_is_written(everywhere: Run, host: str) -> None:
    (said,) = everywhere.refusals[host]
    message = re.fullmatch(
        r"inference_prot( \((.*)\))? is not a variable of xpu.fleet: did you mean inference_port\? "
        r"xpu_rebot( \(.*\))? is not a variable of xpu.fleet: did you mean xpu_reboot\? (.*)",
        said,
    )
    assert message and message[4] == OWN, said
    # Older versions of ansible-core do not know where it is written in an INI file.
    assert (message[2] or f"{SOURCES[host][0]}:").startswith(SOURCES[host][0]), said
    assert everywhere.status == 2 and "UNREACHABLE" not in everywhere.output


@pytest.mark.parametrize("name", ["audit", "plan", "gpus", "rollback"])
def test_every_playbook_refuses_it(name: str, tmp_path: Path) -> None:
    hosts = inventory(tmp_path, {"a": {"inference_prot": 8001, "ansible_connection": "local"}})
    run = playbook(name, "-i", hosts, "-e", "ansible_become=false")
    assert run.status == 2, run.output
    assert "did you mean inference_port?" in run.text
    later = ("Read the GPUs of", "Read the GPUs and", "Ensure an interrupted")
    assert [words for words in later if words in run.output] == []


def test_a_name_of_ones_own_is_taken_where_it_is_listed(tmp_path: Path) -> None:
    own = {"inference_prot": 1, "model_mine": 2}
    listed = {"a": ["inference_prot", "model_mine"], "b": "inference_*, model_mine", "c": ["inference_prot"]}
    hosts = {host: {**own, "xpu_other_variables": names} for host, names in listed.items()}
    run = playbook("site", "-i", inventory(tmp_path, hosts))
    assert list(run.refusals) == ["c"], run.output
    assert "model_mine" in run.refusals["c"][0] and "inference_prot" not in run.refusals["c"][0]


def test_a_role_alone_refuses_it(tmp_path: Path) -> None:
    roles = {path.name for path in (ROOT / "roles").iterdir()} - INNER
    task = {"name": "One role", "ansible.builtin.include_role": {"name": "xpu.fleet.{{ inventory_hostname }}"}}
    play = {"hosts": "all", "gather_facts": False, "vars": {"kernel_pruge": False}, "tasks": [task]}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    run = playbook(str(tmp_path / "play"), "-i", inventory(tmp_path, {role: {} for role in roles}))
    said = {role: refusals[0].partition(" ")[0] for role, refusals in run.refusals.items()}
    assert said == dict.fromkeys(roles, "kernel_pruge"), run.output
    assert "did you mean kernel_purge?" in run.refusals["model"][0]
