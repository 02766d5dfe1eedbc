#!/usr/bin/python
"""Ansible module: the state of a node's instances in a gateway."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gateway_servers
short_description: Tell what a gateway sends to a node
version_added: "1.0.0"
description:
  - Asks HAProxy, on a gateway, what it knows of the instances of a node. Changes nothing.
options:
  node:
    description: Name of the node in the inventory.
    type: str
    required: true
  instances:
    description: How many instances the node has.
    type: int
    required: true
  socket:
    description: HAProxy's admin socket.
    type: path
    default: /run/xpu-gateway/admin.sock
author: The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Wait until the gateway sends nothing to the node
  xpu.fleet.gateway_servers:
    node: "{{ inventory_hostname }}"
    instances: 1
  register: servers
  until: servers.quiet
  delegate_to: door
"""

RETURN = r"""
servers:
  description: C(status), C(sessions) and C(queued) of each instance that the gateway knows, as BACKEND/NAME.
  type: dict
  returned: success
quiet:
  description: Whether none of them has a request or gets one.
  type: bool
  returned: success
up:
  description: Whether all of them get requests.
  type: bool
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.gateway import server_name  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.runtime import haproxy  # noqa: E402


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "node": {"type": "str", "required": True},
            "instances": {"type": "int", "required": True},
            "socket": {"type": "path", "default": "/run/xpu-gateway/admin.sock"},
        },
        supports_check_mode=True,
    )
    names = [server_name(module.params["node"], index) for index in range(module.params["instances"])]
    try:
        found = haproxy.servers(haproxy.ask(module.params["socket"], "show stat"), names)
    except haproxy.HAProxyError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        servers=haproxy.plain(found),
        quiet=all(server.gets_nothing for server in found.values()),
        up=all(server.status.startswith("UP") for server in found.values()),
    )


if __name__ == "__main__":
    main()
