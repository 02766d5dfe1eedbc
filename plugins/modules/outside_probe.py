#!/usr/bin/python
"""Ansible module: whether a service accepts an address that it should refuse, tested from the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: outside_probe
short_description: Try from the controller whether a service lets in whom it should not
version_added: "1.0.0"
description:
  - Connects from the controller, and warns if that works although the controller is not a client.
  - Runs wholly on the controller, and changes nothing.
options:
  host:
    description: Where the controller reaches the node.
    type: str
    required: true
  port:
    description: TCP port of the service.
    type: int
    required: true
  clients:
    description: Networks and addresses that may connect.
    type: list
    elements: str
    required: true
author: The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Changes nothing.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Check from this machine who may connect
  xpu.fleet.outside_probe:
    host: 192.0.2.11
    port: 8000
    clients: [192.0.2.0/28]
"""

RETURN = r"""
outcome:
  description: C(a client) where the controller may connect, C(kept out), or C(let in) where it should not be.
  type: str
  returned: always
source:
  description: The controller's address, as it has it itself.
  type: str
  returned: always
"""
