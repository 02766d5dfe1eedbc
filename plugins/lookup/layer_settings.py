"""A node's variables of layers' roles."""

from __future__ import annotations

DOCUMENTATION = r"""
name: layer_settings
short_description: Read the variables of layers
version_added: "1.0.0"
description:
  - Returns the variables of the roles of these layers for the node, by name, with the roles' defaults and without
    secrets.
  - The play need not run or import the roles.
options:
  _terms:
    description: Names of layers.
    type: list
    elements: str
    required: true
author: The xpu.fleet developers (@xpu-fleet)
"""

EXAMPLES = r"""
- name: Report the settings of the service
  ansible.builtin.debug:
    msg: "{{ query('xpu.fleet.layer_settings', 'service') | first }}"
"""

RETURN = r"""
_raw:
  description: One dictionary, variables by name.
  type: list
  elements: dict
"""

from typing import Any

from ansible.plugins.lookup import LookupBase
from ansible_collections.xpu.fleet.plugins.module_utils.layers import LAYERS
from ansible_collections.xpu.fleet.plugins.plugin_utils.role_variables import with_roles
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import options_of


class LookupModule(LookupBase):
    """The lookup."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[dict[str, Any]]:
        """Return the variables of these layers."""
        known = with_roles(variables or {})
        templar = self._templar.copy_with_new_env(available_variables=known)
        options = options_of([layer.role for layer in LAYERS if layer.name in terms])
        names = sorted(name for name, option in options.items() if not option.get("no_log"))
        return [{name: templar.template(known[name]) for name in names if name in known}]
