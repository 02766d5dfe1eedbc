"""Bare nodes for each file of tests, and none left behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig.fleet import Fleet

from tests.hosts.nodes import Nodes


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    """The nodes of fleet alone, bare. The folder's path is short: SSH puts sockets into it."""
    fleet = Fleet.load("alone")
    folder = Path(tempfile.mkdtemp(prefix="xpu-"))
    fleet.down()
    fleet.up()
    try:
        yield Nodes(fleet, folder)
    finally:
        fleet.down()
        shutil.rmtree(folder)
