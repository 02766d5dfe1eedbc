"""Instances get the cards with the most memory, in the order of the bus."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.filter.gpus import serving_gpus


def cards(*memory: int) -> list[dict[str, Any]]:
    """Cards at 0, 1, 2..., each with its memory."""
    return [{"address": str(index), "memory_bytes": size} for index, size in enumerate(memory)]


@pytest.mark.parametrize(
    ("memory", "instances", "served"),
    [
        ((6, 16), "auto", "01"),
        ((6, 16), "1", "1"),
        ((6, 16), 2, "01"),
        ((16, 6), 1, "0"),
        ((12, 6, 16), 2, "02"),
        # Alike, or not known: the first of the bus.
        ((16, 16, 16), 2, "01"),
        ((0, 0), 1, "0"),
        ((), "auto", ""),
    ],
)
def test_instances_get_the_cards_with_the_most_memory(memory: tuple[int, ...], instances: Any, served: str) -> None:
    assert "".join(gpu["address"] for gpu in serving_gpus(cards(*memory), instances)) == served
