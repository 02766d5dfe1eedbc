"""Filters that read variables as the roles' argument specifications define them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils import variable_types


def as_list(value: Any) -> list[Any]:
    """Return the list in a variable: itself, or the parts of a string (``a,b``, ``['a', 'b']``)."""
    # Other values were refused before.
    return variable_types.as_list(value) or []


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them."""
        return {"as_list": as_list}
