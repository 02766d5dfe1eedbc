"""The engine's environment on a node with a Python above 3.11, whose importlib.metadata reports less."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

testinfra_hosts = ["ansible://native"]


@pytest.fixture
def lost(host: Any) -> Iterator[str]:
    """A file of the environment that is removed, and restored afterwards."""
    path = host.check_output("find /opt/xpu/engines/openvino/lib -path '*site-packages/fastapi/__init__.py'")
    host.check_output("mv %s %s.away", path, path)
    yield path
    host.check_output("mv %s.away %s", path, path)


def test_a_deleted_file_is_found(host: Any, audited: Any, lost: str) -> None:
    version = host.check_output("/opt/xpu/engines/openvino/bin/python -c %s", "import sys; print(sys.version_info[1])")
    assert int(version) >= 12
    said, layers = audited()
    assert (said.status, layers["python"]["status"]) == (1, "drift"), said.output
    found = [entry["what"] for entry in layers["python"]["findings"]]
    assert found and all("fastapi" in what for what in found), found
