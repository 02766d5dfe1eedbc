"""Nodes that version 0.1 provisioned, taken over by site.yml: the README's upgrade note, tried."""

from __future__ import annotations

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from tests.hosts.nodes import ROOT, Nodes

#: The last commit of 0.1.0's changelog: that version has no tag.
FIRST = "a4c4a3f4a21f6a9878252aa6bdb49ea055b0ab42"
NODES = {"alone-arc", "alone-cpu"}


@pytest.fixture(scope="module")
def former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout of version 0.1."""
    folder = tmp_path_factory.mktemp("former")
    archive = subprocess.run(["git", "archive", FIRST], cwd=ROOT, capture_output=True, check=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="fully_trusted")  # noqa: S202 - our own; it links to itself
    return folder


def test_nodes_of_the_first_version_converge(nodes: Nodes, former: Path) -> None:
    before = nodes.run(former / "site.yml", checkout=former)
    assert before.status == 0, before.output
    assert before.changed.keys() == NODES
    upgrade = nodes.run(ROOT / "site.yml")
    assert upgrade.status == 0, upgrade.output
    assert all(upgrade.changed.values()), "the service is another one"
    again = nodes.run(ROOT / "site.yml")
    assert (again.status, again.changed) == (0, dict.fromkeys(NODES, 0)), again.output
    audit = nodes.run(ROOT / "playbooks/audit.yml")
    assert audit.status == 0, audit.output
