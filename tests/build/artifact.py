"""The collection as an operator gets it: built, and installed in an empty folder away from the checkout."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Where a collection is in a folder of collections.
COLLECTION = "ansible_collections/xpu/fleet"


def run(command: list[str], folder: Path, within: str = ".", **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command within an operator's folder, without this machine's Ansible settings."""
    return subprocess.run(
        command, cwd=folder / within, env=environment(folder, variables), capture_output=True, text=True, check=False
    )


def ansible(command: list[str], folder: Path, within: str = ".") -> str:
    """Run a command that has to succeed, and return its output."""
    result = run(command, folder, within)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def environment(folder: Path, variables: Mapping[str, str]) -> dict[str, str]:
    """Return an environment whose Ansible finds only that folder's collections."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("ANSIBLE_")}
    ours = {"ANSIBLE_COLLECTIONS_PATH": str(folder), "ANSIBLE_HOME": str(folder / "home"), "NO_COLOR": "1"}
    return {**kept, **ours, **variables}


def install(folder: Path) -> Path:
    """Build the collection and install it in an empty folder; return its place."""
    ansible(["ansible-galaxy", "collection", "build", str(ROOT), "--output-path", str(folder)], folder)
    ansible(["ansible-galaxy", "collection", "install", str(artifact(folder)), "-p", str(folder), "--offline"], folder)
    return folder / COLLECTION


def artifact(folder: Path) -> Path:
    """Return the artifact that ``install`` built there."""
    (built,) = folder.glob("xpu-fleet-*.tar.gz")
    return built
