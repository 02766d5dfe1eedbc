"""Documentation of the action plugin variable_types, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: variable_types
short_description: Refuse variables that are misspelt, of the wrong type, or of no use
version_added: "0.1.0"
description:
  - Refuses variables that begin with C(xpu_) or as a role's do (C(kernel_), C(inference_), ...) and are not this
    collection's, and those that are one letter from one of them, with the nearest name that there is. A variable for
    another purpose is named in the list C(xpu_other_variables), by its name or a pattern (C(kernel_mine_*)).
  - Compares variables with the C(meta/argument_specs.yml) of roles of this collection, without converting anything, and
    with what those roles can work with. Strings that say a number, a list or true or false are taken for it.
  - Fails with one message that names every such variable, with the file and line where ansible-core knows them. Nothing
    runs on the node.
author: The xpu.fleet developers (@xpu-fleet)
options:
  roles:
    description: Names of the roles whose variables are checked beside those that begin with C(xpu_); all where empty.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Check the variables
  xpu.fleet.variable_types:

- name: Check the variables of two roles
  xpu.fleet.variable_types:
    roles: [kernel, oneapi]
"""

RETURN = r"""
postponed:
  description: Variables whose templates need what the run is still to find out, such as C(stack_resolved).
  type: list
  elements: str
  returned: success
"""
