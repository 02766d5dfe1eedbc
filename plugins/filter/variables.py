"""Reads variables as the roles' argument specifications mean them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils import variable_types


def as_list(value: Any) -> list[Any]:
    """Return the list that a variable says: its own, or the parts of a string (``a,b``, ``['a', 'b']``)."""
    # What is neither was refused by then.
    return variable_types.as_list(value) or []


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them."""
        return {"as_list": as_list}
