"""Possible drift on the node of stack native, whose Python is newer than the others'."""

from __future__ import annotations

from typing import Any

import pytest
from default.tests.drift.drifts import ENGINE_FILES, endure

testinfra_hosts = ["ansible://native"]


@pytest.mark.parametrize("case", ENGINE_FILES)
def test_it_is_named_and_put_right_and_nothing_else_moves(case: str, host: Any, layers: Any, site: Any) -> None:
    endure(ENGINE_FILES[case], host, layers, site)
