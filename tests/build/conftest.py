"""Let these tests import the collection from the checkout, for the names that the artifact has to document."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.build.artifact import ROOT, install

sys.path.insert(0, str(ROOT / "collections"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder with the built collection installed."""
    folder = tmp_path_factory.mktemp("operator")
    install(folder)
    return folder
