"""The collection as an operator installs it, on a real node."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[4]
testinfra_hosts = ["ansible://cpu"]


def test_the_installed_collection_finds_nothing_to_do(tmp_path: Path) -> None:
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")},
        "ANSIBLE_COLLECTIONS_PATH": str(tmp_path),
        "ANSIBLE_HOME": str(tmp_path / "home"),
    }

    def run(tool: str, *arguments: str, directory: Path = tmp_path) -> str:
        command = [str(Path(sys.executable).with_name(tool)), *arguments]
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run("ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), directory=ROOT)
    (artifact,) = tmp_path.glob("xpu-fleet-*.tar.gz")
    run("ansible-galaxy", "collection", "install", str(artifact), "--collections-path", str(tmp_path))
    inventory = os.environ["MOLECULE_INVENTORY_FILE"]
    recap = run("ansible-playbook", "xpu.fleet.site", "--inventory", inventory, "--limit", "cpu")
    assert " changed=0 " in recap, recap
    assert " failed=0 " in recap, recap
