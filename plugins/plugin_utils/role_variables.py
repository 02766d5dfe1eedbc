"""The roles' variables for code outside of roles: their defaults, and those of ``vars/main.yml``."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from typing import Any

from ansible.parsing.dataloader import DataLoader
from ansible_collections.xpu.fleet.plugins.module_utils.layers import ROLES
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import COLLECTION

#: From ansible-core 2.19 on, templates have to be marked.
_SIGNATURE = inspect.signature(DataLoader.load_from_file).parameters
_TRUSTED = {"trusted_as_template": True} if "trusted_as_template" in _SIGNATURE else {}


def with_roles(variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's variables with those of all layers' roles. The node's variables override roles' defaults."""
    return {**variables_of("defaults"), **variables, **variables_of("vars")}


@functools.cache
def variables_of(kind: str) -> dict[str, Any]:
    """Return the variables of all layers' roles, of kind ``defaults`` or ``vars``."""
    loader, found = DataLoader(), dict[str, Any]()
    for role in ROLES.values():
        path = COLLECTION / "roles" / role / kind / "main.yml"
        if path.is_file():
            found.update(loader.load_from_file(str(path), **_TRUSTED) or {})
    return found
