"""What roles do with packages, for cases that no test host covers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]


def tasks_of(path: str) -> list[dict[str, Any]]:
    tasks: list[dict[str, Any]] = yaml.safe_load((ROOT / "roles" / path).read_text())
    return tasks


@pytest.mark.parametrize(
    ("line", "kernels"),
    [
        (r'BUILD_EXCLUSIVE_KERNEL="^5\.19\.0-41-generic$"', ["5.19.0-41-generic"]),
        (r'BUILD_EXCLUSIVE_KERNEL="5\.19\.0-41-generic"', []),
        (r'BUILD_EXCLUSIVE_KERNEL="5\.19\.0-41-generic$"', []),
        ('BUILD_EXCLUSIVE_KERNEL="^.*$"', []),
        ('BUILD_EXCLUSIVE_KERNEL="^../../etc$"', []),
        ('BUILD_EXCLUSIVE_KERNEL="^$"', []),
        ('BUILD_EXCLUSIVE_KERNEL=""', []),
        ('# BUILD_EXCLUSIVE_KERNEL="^6.2.0$"', []),
    ],
)
def test_only_releases_are_taken_for_folders_of_modules(tmp_path: Path, line: str, kernels: list[str]) -> None:
    name = "Read for which kernels modules were built"
    (task,) = (task for task in tasks_of("gpu_driver/tasks/rollback.yml") if task["name"] == name)
    (tmp_path / "intel-x.conf").write_text(f"{line}\n")
    command = ["awk", "-F", "[$^]", task["vars"]["__gpu_driver_kernel_of"], str(tmp_path / "intel-x.conf")]
    assert "'awk', '-F', '[$^]', __gpu_driver_kernel_of" in task["ansible.builtin.command"]["argv"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert output.splitlines() == kernels


def test_packages_that_are_pinned_no_more_are_let_go_before_the_pins_are_written(tmp_path: Path) -> None:
    tasks = tasks_of("pinned_packages/tasks/install.yml")
    written = next(number for number, task in enumerate(tasks) if "ansible.builtin.template" in task)
    pins = tmp_path / "xpu-fleet-kernel.pref"
    pins.write_text("# managed\n\nPackage: newer\nPin: version 2\n\nPackage: stays\nPin: version 1\n")
    steps: list[dict[str, Any]] = []
    for task in [*tasks_of("pinned_packages/tasks/pins.yml"), *tasks[:written]]:
        if "ansible.builtin.command" in task:
            command = task["ansible.builtin.command"]
            command["argv"] = [part.replace("/etc/apt/preferences.d", str(tmp_path)) for part in command["argv"]]
        holds = task.pop("xpu.fleet.apt_holds", None)
        if holds:
            task["ansible.builtin.assert"] = {"that": "let_go == ['newer']", "success_msg": "newer is let go"}
            task["vars"]["let_go"] = holds["packages"]
            assert holds["state"] == "unheld"
        if "ansible.builtin.import_tasks" not in task:
            steps.append(task)
    variables = {
        **{"__pinned_packages_exact": {"stays": "1", "older": "1"}, "pinned_packages_record": "kernel"},
        "ansible_python_interpreter": sys.executable,
    }
    play = {"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": steps}
    (tmp_path / "play.yml").write_text(yaml.safe_dump([play]))
    playbook = ["ansible-playbook", "-i", "localhost,", "-c", "local", str(tmp_path / "play.yml")]

    def run() -> str:
        done = subprocess.run(playbook, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "newer is let go" in run()
    pins.unlink()
    assert "newer is let go" not in run()


@pytest.mark.parametrize(
    "place",
    [
        *("roles/kernel/tasks/install.yml", "roles/kernel/tasks/install_candidate.yml"),
        *("roles/gpu_driver/tasks/modules.yml", "playbooks/tasks/provision.yml"),
    ],
)
def test_dkms_keeps_to_the_stacks_kernel_before_apt_configures_anything(place: str) -> None:
    """Headers of a newer kernel stay half configured where a module does not build for it."""
    order = []
    for task in yaml.safe_load((ROOT / place).read_text()):
        included = task.get("ansible.builtin.include_role", {})
        tasks = included.get("tasks_from") or task.get("ansible.builtin.include_tasks", "main")
        if "exclusive" in tasks:
            order.append("told")
        elif included.get("name") == "xpu.fleet.pinned_packages" or tasks == "install.yml":
            order.append("apt")
    assert order[:2] == ["told", "apt"]
    assert not any("pinned_packages" in str(task) for task in tasks_of("gpu_driver/tasks/exclusive.yml"))
