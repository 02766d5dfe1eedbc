"""Fixtures that several test files share."""

from __future__ import annotations

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.aptrepo import SigningKey


@pytest.fixture(scope="session")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    """The key that the tests pin; making one takes a moment, so the whole session shares it."""
    return SigningKey(tmp_path_factory.mktemp("gnupg") / "vendor", "Vendor <vendor@example.com>")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    """Another key."""
    return SigningKey(tmp_path_factory.mktemp("gnupg") / "stranger", "Stranger <stranger@example.com>")
