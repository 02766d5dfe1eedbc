"""The order of role kernel's steps, for cases that no test machine covers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
TASKS = ROOT / "roles/kernel/tasks"

#: How a run finds a node that runs the kernel it wants, and what happens to the node then.
FOUND: dict[str, tuple[dict[str, Any], list[str]]] = {
    "grub": ({"kexec": False, "tried": True, "newer": True}, ["default", "purge", "reboot"]),
    "kexec": ({"kexec": True, "tried": True, "newer": True}, ["default", "reboot", "purge"]),
    "kexec-alone": ({"kexec": True, "tried": True, "newer": False}, ["default", "reboot"]),
    # An earlier run came as far as this.
    "kexec-interrupted": ({"kexec": True, "tried": False, "newer": True}, ["default", "reboot", "purge"]),
    "grub-interrupted": ({"kexec": False, "tried": False, "newer": True}, ["default", "purge"]),
    "unbooted": ({"kexec": False, "tried": False, "newer": False, "untried": True}, ["default", "reboot"]),
    "converged": ({"kexec": True, "tried": False, "newer": False}, ["default"]),
    # Any kernel from one on will do.
    "upgraded": ({"kexec": False, "tried": True, "newer": False, "oldest": "6.8"}, ["default", "followed", "reboot"]),
    "new-enough": ({"kexec": False, "tried": False, "newer": False, "oldest": "6.8"}, ["followed"]),
    # Any kernel of a range: newer ones are removed, and then GRUB decides by itself.
    "too-new": (
        {"kexec": False, "tried": True, "newer": True, "oldest": "6.8", "before": "6.9"},
        ["default", "purge", "followed", "reboot"],
    ),
    "default-too-new": (
        {"kexec": False, "tried": False, "newer": False, "oldest": "6.2", "before": "6.8"},
        ["default", "followed"],
    ),
    "in-range": ({"kexec": False, "tried": False, "newer": False, "oldest": "6.8", "before": "6.9"}, ["followed"]),
    "default-too-old": ({"kexec": False, "tried": False, "newer": False, "oldest": "6.12"}, ["default", "followed"]),
}

#: Check mode has no trial, so nothing to confirm.
TRIED = {("default", "upgraded"), ("default", "too-new")}


def note(step: str) -> dict[str, Any]:
    return {"ansible.builtin.set_fact": {"done": "{{ done + ['" + step + "'] }}"}}


def stand_ins(name: str) -> list[dict[str, Any]]:
    """Return a file of tasks; what would change this machine only says so."""
    tasks: list[dict[str, Any]] = yaml.safe_load((TASKS / name).read_text())
    acts = {"xpu.fleet.boot_kernel": "", "ansible.builtin.include_role": "reboot"}
    for task in tasks:
        for module, step in acts.items():
            options = task.pop(module, None)
            if options:
                task.pop("vars", None)
                task.update(note(step or options["state"]))
    return tasks


@pytest.mark.parametrize("check", [False, True], ids=["run", "check"])
def test_what_grub_booted_so_far_stays_until_grub_has_booted_the_kernel(tmp_path: Path, check: bool) -> None:
    files = {name: stand_ins(name) for name in ("make_default.yml", "boot_default.yml")}
    after = {
        "boot": {
            "kexec": False,
            "running": "wanted",
            "default": "6.8.0-50-generic",
            "trial": {},
            "default_untried": False,
        }
    }
    files["read_boot.yml"] = [{"name": "Look", "ansible.builtin.set_fact": {"__kernel_boot": after}}]
    files["purge.yml"] = [{"name": "Purge", **note("purge")}]
    for name, tasks in files.items():
        (tmp_path / name).write_text(yaml.safe_dump(tasks))
    hosts = {}
    for host, (found, done) in FOUND.items():
        hosts[host] = {
            "__kernel_boot": {
                "boot": {**after["boot"], "kexec": found["kexec"], "default_untried": found.get("untried", False)}
            },
            "__kernel_superfluous": {"packages": ["newer"] if found["newer"] else []},
            "__kernel_oldest": found.get("oldest", ""),
            "__kernel_before": found.get("before", ""),
            "__kernel_follows": "oldest" in found,
            "expected": [step for step in done if not (check and (step == "reboot" or (step, host) in TRIED))],
            # Nothing is tried in check mode.
            **({"__kernel_tried": True} if found["tried"] and not check else {}),
        }
    unsettled = yaml.safe_load((TASKS.parent / "vars/main.yml").read_text())["__kernel_unsettled"]
    common = {
        **{"done": [], "__kernel_wanted": "wanted", "__kernel_runs": True, "__kernel_unsettled": unsettled},
        "ansible_connection": "local",
    }
    (tmp_path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": common}}))
    compare = {"that": "done == expected", "fail_msg": "{{ done }} instead of {{ expected }}"}
    play = {
        "hosts": "all",
        "gather_facts": False,
        "tasks": [
            {"name": "Settle", "ansible.builtin.include_tasks": str(tmp_path / "make_default.yml")},
            {"name": "Compare", "ansible.builtin.assert": compare},
        ],
    }
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    command = ["ansible-playbook", "-i", str(tmp_path / "hosts.yml"), str(tmp_path / "play.yml")]
    run = subprocess.run(
        [*command, *(["--check"] if check else [])], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


ROOM = [
    "Read the free space in /boot",
    "Read the sizes of the initramfs files",
    "Read whether the kernel is installed",
]
REFUSAL = "Check the free space in /boot"


def room_tasks() -> list[dict[str, Any]]:
    """Return the tasks of the preflight that look at /boot, as they are."""
    (block,) = (task["block"] for task in yaml.safe_load((TASKS / "preflight.yml").read_text()) if "block" in task)
    tasks = [task for task in block if task["name"] in (*ROOM, REFUSAL)]
    assert [task["name"] for task in tasks] == [*ROOM, REFUSAL]
    return tasks


@pytest.mark.parametrize(
    ("initramfs", "free", "runs", "said"),
    [
        pytest.param(20, 10, False, "MiB, as its initramfs is written beside the present one", id="rewritten"),
        pytest.param(
            20, 22, False, "as its initramfs is written beside the present one", id="rewritten-with-no-margin"
        ),
        pytest.param(20, 30, False, "", id="rewritten-with-room"),
        pytest.param(20, 10, True, "as its initramfs is written beside the present one", id="rewritten-while-it-runs"),
        pytest.param(0, 100, False, "needs 250 MiB", id="new"),
        pytest.param(0, 10, True, "", id="nothing-to-write"),
    ],
)
def test_a_boot_partition_that_is_too_full_is_refused(
    tmp_path: Path, initramfs: int, free: int, runs: bool, said: str
) -> None:
    """The tasks run on a file system of that size, mounted at /boot for them alone."""
    mebibyte = 1024**2
    play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": room_tasks()}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([{**play, "vars_files": [str(TASKS.parent / "vars/main.yml")]}]))
    given = {
        "__kernel_wanted": "6.8.0-138-generic",
        "__kernel_runs": runs,
        "ansible_python_interpreter": sys.executable,
    }
    (tmp_path / "vars.json").write_text(json.dumps(given))
    # Another kernel's initramfs is smaller.
    files = {"initrd.img-6.5.0-1-generic": 5, "initrd.img-6.8.0-138-generic": initramfs}
    script = f"mount -t tmpfs -o size={sum(files.values()) + free}m tmpfs /boot\n" + "".join(
        f"head -c {size * mebibyte} /dev/zero > /boot/{name}\n" for name, size in files.items() if size
    )
    playbook = f"exec ansible-playbook -i localhost, -e @{tmp_path}/vars.json {tmp_path}/play.yml"
    command = ["unshare", "--map-root-user", "--mount", "sh", "-euc", script + playbook]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    told = " ".join((run.stdout + run.stderr).split())
    assert (run.returncode == 0) == (not said) and said in told, told
    assert not said or "Remove an unused kernel" in told
