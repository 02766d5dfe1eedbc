"""Filters for a node's GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any


def serving_gpus(gpus: Sequence[dict[str, Any]], instances: Any = "auto") -> list[dict[str, Any]]:
    """Return the GPUs for instances of the service: all, or those with the most memory, in their own order."""
    if str(instances) == "auto":
        return list(gpus)
    largest = sorted(gpus, key=lambda gpu: -int(gpu.get("memory_bytes", 0)))[: int(instances)]
    chosen = {gpu["address"] for gpu in largest}
    return [gpu for gpu in gpus if gpu["address"] in chosen]


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them."""
        return {"serving_gpus": serving_gpus}
