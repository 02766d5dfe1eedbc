"""Python from a channel is the pinned build, or is not used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import StackError, check_shape

ROOT = Path(__file__).resolve().parents[2]
PIN = {"version": "3.9.18", "build": "h955ad1f_0", "sha256": "ab" * 32}
PLAY = """
- hosts: localhost
  gather_facts: false
  vars_files: ["{root}/roles/python_runtime/vars/main.yml"]
  tasks:
    - ansible.builtin.include_tasks: "{root}/roles/python_runtime/tasks/miniconda_create.yml"
"""
# The output of a channel with one build, and the requests to it.
CONDA = """#!/bin/sh
prefix=$4; for spec; do :; done
mkdir -p "$prefix/conda-meta"
echo "$spec" >"$0.asked"
echo '{{"name": "python", "sha256": "{sha256}"}}' >"$prefix/conda-meta/python-3.9.18-h955ad1f_0.json"
"""


def create(tmp_path: Path, conda: dict[str, str], sha256: str = "ab" * 32) -> tuple[int, str, str]:
    """Make an interpreter from a channel; the status, the output, and conda's arguments."""
    program = tmp_path / "miniconda3/bin/conda"
    program.parent.mkdir(parents=True)
    (tmp_path / "python").mkdir()
    program.write_text(CONDA.format(sha256=sha256))
    program.chmod(0o755)
    (tmp_path / "play.yml").write_text(PLAY.format(root=ROOT))
    variables: dict[str, Any] = {
        "__python_runtime_root": str(tmp_path),
        "stack_resolved": {
            "python": {"version": "3.9", "channel": "https://channel", "provider": "miniconda", "conda": conda}
        },
    }
    (tmp_path / "vars.json").write_text(json.dumps(variables))
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", "-c", "local", "play.yml",
            "-e", "@vars.json", "-e", f"ansible_python_interpreter={sys.executable}",
        ],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "NO_COLOR": "1"},
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr, (tmp_path / "miniconda3/bin/conda.asked").read_text().strip()


def test_the_pinned_build_is_asked_for_and_taken(tmp_path: Path) -> None:
    status, output, asked = create(tmp_path, PIN)
    assert status == 0, output
    assert asked == "python=3.9.18=h955ad1f_0"
    assert not (tmp_path / "python/3.9.installing").exists()


def test_another_file_under_that_name_is_refused_and_made_again(tmp_path: Path) -> None:
    status, output, _ = create(tmp_path, PIN, sha256="cd" * 32)
    assert status != 0 and "cd" * 32 in output and "ab" * 32 in output and "Do not use that channel" in output
    assert (tmp_path / "python/3.9.installing").exists()


def test_without_a_pin_the_channels_newest_is_taken(tmp_path: Path) -> None:
    status, output, asked = create(tmp_path, {})
    assert (status, asked) == (0, "python=3.9"), output


def test_a_pin_has_its_keys_and_no_others() -> None:
    check_shape({"python": {"environments": {"bigdl-gpu": {"conda": PIN}}}}, "xpu_stack_overrides")
    with pytest.raises(StackError, match="md5"):
        check_shape({"python": {"environments": {"bigdl-gpu": {"conda": {"md5": "x"}}}}}, "xpu_stack_overrides")
