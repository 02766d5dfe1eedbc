#!/usr/bin/python
"""Ansible module: whether sources of downloads answer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: reachable
short_description: Check that URLs and paths can be read from a node
version_added: 0.1.0
description:
  - Asks every source once and fails with one message that names all those that do not answer.
  - Changes nothing and fetches no content.
options:
  sources:
    description: URLs (http, https, file) or paths of the node.
    type: list
    elements: str
    required: true
  purpose:
    description: What the sources are for, as the message says it.
    type: str
    required: true
  advice:
    description: What to set, as the message says it.
    type: str
    required: true
  proxy:
    description: Proxy to ask through.
    type: str
    default: ""
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
- name: Check the package index
  xpu.fleet.reachable:
    sources: [https://pypi.org/simple/]
    purpose: Python packages
    advice: set python_runtime_index_url
"""

RETURN = r"""
sources:
  description: What was asked.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password, use_proxy  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.reach import problems  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import hide_secrets  # noqa: E402


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "sources": {"type": "list", "elements": "str", "required": True},
            "purpose": {"type": "str", "required": True},
            "advice": {"type": "str", "required": True},
            "proxy": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
        no_log=True,  # to syslog: URLs among the options may have a password
    )
    hide_secrets(module)
    options = module.params
    try:
        use_proxy(options["proxy"])
    except FleetError as error:
        module.fail_json(msg=f"{error}.")
    found = problems(options["sources"])
    if found:
        module.fail_json(
            msg=f"Cannot read, for {options['purpose']}: {'; '.join(found)}. To solve this: {options['advice']}."
        )
    module.exit_json(changed=False, sources=[hide_password(source) for source in options["sources"]])


if __name__ == "__main__":
    main()
