"""Modules that DKMS calls installed are restored if their files are missing or different."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KERNEL = "5.19.0-41-generic"
#: A stand-in for dkms: a file holds its output, and a forced installation corrects a line of it.
DKMS = """#!/bin/sh
echo "$*" >> {place}/asked
case "$1" in
status) cat {place}/says ;;
install) sed -i "s#^\\($(echo "$3" | sed 's#/#[/, ]*#')\\(,.*\\)*: installed\\) (.*#\\1#" {place}/says ;;
esac
"""
SOUND = f"sound/1, {KERNEL}, x86_64: installed (original_module exists)"


FORCED = f"install --force i915-dkms/1.23 -k {KERNEL}"


@pytest.mark.parametrize(
    ("says", "forced"),
    [
        (f"i915-dkms/1.23, {KERNEL}, x86_64: installed (Original modules exist)", []),
        (f"i915-dkms/1.23, {KERNEL}, x86_64: installed (Differences between built and installed modules)", [FORCED]),
        (
            f"i915-dkms, 1.23, {KERNEL}, x86_64: installed (original_module exists) (WARNING! Diff between built and"
            " installed module!)",
            [FORCED],
        ),
    ],
)
def test_a_module_that_is_not_in_place_is_put_back(tmp_path: Path, says: str, forced: list[str]) -> None:
    command = tmp_path / "dkms"
    command.write_text(DKMS.format(place=tmp_path))
    command.chmod(0o755)
    # Another's module is another's.
    (tmp_path / "says").write_text(f"{says}\n{SOUND}\nother/2, {KERNEL}, x86_64: installed (WARNING! Diff)\n")
    variables = {
        "__gpu_driver_kernel": KERNEL,
        "__gpu_driver_modules": [{"module": "i915-dkms"}, {"module": "sound"}],
        "ansible_python_interpreter": sys.executable,
    }
    role = ROOT / "roles/gpu_driver"
    build = {"name": "Build", "ansible.builtin.include_tasks": str(role / "tasks/build.yml")}
    of_all = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    play = [{**of_all, "vars_files": [str(role / "vars/main.yml")], "tasks": [build]}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    run = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-e", json.dumps(variables), str(tmp_path / "play.yml")],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line for line in asked if line.startswith("install")] == forced


RANGE = {"release": "", "at_least": "6.8", "before": "6.9"}


@pytest.mark.parametrize(
    ("kernel", "built", "left"),
    [
        ({"release": KERNEL, "at_least": "", "before": ""}, [KERNEL], ["5.19.0-41-lowlatency", "5.19.0-411-generic"]),
        (RANGE, ["6.8.0-31-generic", "6.8.0-1015-aws"], ["6.80.0-1-generic", "6.17.0-22-generic", "16.8.0-1-generic"]),
        ({**RANGE, "at_least": "6.8.0-44"}, ["6.8.0-138-generic"], ["6.9.0-1-generic"]),
        ({"release": "", "at_least": "5.15", "before": "5.16"}, ["5.15.0-141-generic"], ["5.19.0-50-generic"]),
        ({"release": "", "at_least": "6.12", "before": ""}, ["6.12.0-1-generic", "7.0.0-28-generic"], []),
    ],
)
def test_dkms_builds_for_the_kernels_that_the_modules_are_made_for(
    tmp_path: Path, kernel: dict[str, str], built: list[str], left: list[str]
) -> None:
    role = ROOT / "roles/gpu_driver"
    template = {"src": str(role / "templates/dkms.conf.j2"), "dest": str(tmp_path / "dkms.conf")}
    of_all = {"hosts": "localhost", "connection": "local", "gather_facts": False}
    tasks = [{"name": "Write", "ansible.builtin.template": template, "when": "__gpu_driver_only | length > 0"}]
    play = [{**of_all, "vars_files": [str(role / "vars/main.yml")], "tasks": tasks}]
    (tmp_path / "play.yml").write_text(yaml.safe_dump(play))
    variables = {"stack_resolved": {"kernel": kernel}, "ansible_python_interpreter": sys.executable}
    run = subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-e", json.dumps(variables), str(tmp_path / "play.yml")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr
    written = tmp_path / "dkms.conf"
    # DKMS takes it for a regular expression of bash.
    found = (
        re.search(r'^BUILD_EXCLUSIVE_KERNEL="(.*)"$', written.read_text(), re.MULTILINE) if written.exists() else None
    )
    only = re.compile(found[1] if found else "")
    assert all(only.search(release) for release in built) and not any(only.search(release) for release in left)
