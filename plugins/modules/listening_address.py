#!/usr/bin/python
"""Ansible module: whether a service can listen on its address."""

from __future__ import annotations

DOCUMENTATION = r"""
module: listening_address
short_description: Check that TCP ports are free, or held by the service itself
version_added: 0.1.0
description:
  - Fails when the node does not have the address, or when something else listens on one of the ports, and names it.
  - Fails for clients that are neither an address nor a network, as systemd would leave them out.
  - Changes nothing.
options:
  host:
    description: IP address to listen on.
    type: str
    required: true
  ports:
    description: Ports to listen on.
    type: list
    elements: int
    required: true
  unit:
    description: Beginning of the systemd unit names that may hold the ports.
    type: str
    required: true
  clients:
    description: Addresses and networks that may connect; each has to be one.
    type: list
    elements: str
    default: []
  variables:
    description: Names of the variables of host, port and clients, for the messages.
    type: list
    elements: str
    default: [host, port, clients]
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
- name: Check the ports
  xpu.fleet.listening_address:
    host: 127.0.0.1
    ports: [8000, 8001]
    unit: xpuserve@
"""

RETURN = r"""
ports:
  description: The ports that were checked.
  type: list
  elements: int
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.listeners import (  # noqa: E402
    address_problem,
    is_network,
    listeners,
    overlaps,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "host": {"type": "str", "required": True},
            "ports": {"type": "list", "elements": "int", "required": True},
            "unit": {"type": "str", "required": True},
            "clients": {"type": "list", "elements": "str", "default": []},
            "variables": {"type": "list", "elements": "str", "default": ["host", "port", "clients"]},
        },
        supports_check_mode=True,
    )
    host, ports, unit = module.params["host"], module.params["ports"], module.params["unit"]
    host_variable, port_variable, clients_variable = module.params["variables"]
    problem = address_problem(host)
    if problem:
        module.fail_json(
            msg=f"{host_variable} is {host}: {problem}. Use 127.0.0.1 for this node only, 0.0.0.0 for every network."
        )
    strange = [client for client in module.params["clients"] if not is_network(client)]
    if strange:
        module.fail_json(
            msg=f"{clients_variable} names {', '.join(strange)}: use addresses (192.0.2.7) and networks (192.0.2.0/24)."
        )
    wrong = [port for port in ports if not 0 < port < 65536]
    if wrong:
        module.fail_json(
            msg=f"Port {wrong[0]} does not exist: {port_variable} and one port for each instance stay below 65536."
        )
    taken = [
        f"port {port} is used by {found.describe()}"
        for port in ports
        for found in listeners(port)
        if overlaps(found.address, host) and f"/{unit}" not in found.cgroup
    ]
    if taken:
        module.fail_json(
            msg=f"The service cannot listen: {'; '.join(sorted(set(taken)))}. Stop that process, or set "
            f"{port_variable}."
        )
    module.exit_json(changed=False, ports=ports)


if __name__ == "__main__":
    main()
