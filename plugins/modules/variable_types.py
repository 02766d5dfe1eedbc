"""Documentation of the action plugin variable_types, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: variable_types
short_description: Refuse role variables of the wrong type
version_added: "0.1.0"
description:
  - Compares variables with the C(meta/argument_specs.yml) of roles of this collection, without converting anything.
  - Fails with one message that names every variable of a wrong type. Nothing runs on the node.
author: The xpu.fleet developers (@xpu-fleet)
options:
  roles:
    description: Names of the roles, whose variables have to be visible where this is called.
    type: list
    elements: str
    required: true
  entry_point:
    description: Entry point whose options are meant.
    type: str
    default: main
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Check the types of the variables
  xpu.fleet.variable_types:
    roles: [kernel, oneapi]
"""

RETURN = r""" # """
