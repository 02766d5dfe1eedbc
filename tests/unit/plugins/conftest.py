"""Fixtures that several test files share."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.aptrepo import SigningKey


@contextmanager
def key(home: Path, name: str) -> Iterator[SigningKey]:
    """A key, as long as the block runs: its agent would stay until the directory goes, some sessions later."""
    try:
        yield SigningKey(home, name)
    finally:
        subprocess.run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=True)


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningKey]:
    """The key that the tests pin; making one takes a moment, so the whole session shares it."""
    with key(tmp_path_factory.mktemp("gnupg") / "vendor", "Vendor <vendor@example.com>") as made:
        yield made


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SigningKey]:
    """Another key."""
    with key(tmp_path_factory.mktemp("gnupg") / "stranger", "Stranger <stranger@example.com>") as made:
        yield made
