#!/usr/bin/python
"""Ansible module: compare a node with its expected state, layer by layer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_audit
short_description: Compare a node with its expected state
version_added: "1.0.0"
description:
  - Reads the node's real state in one call (dpkg's own database, checksums of files, the running kernel, GRUB's menu,
    DKMS's tree, the environment of running processes, an answered prompt) and changes nothing.
  - A layer of which something could not be looked at is never C(ok). Without root, what only root can read is named.
options:
  expected:
    description:
      - What is expected, by layer. Every layer takes C(packages) (name to version, or empty for any), C(holds),
        C(files) (path to C(sha256), C(size), C(mode), C(owner) and C(group)) and C(absent) (paths), beside keys of its
        own.
      - Where it is left out, it is what the roles of this collection expect of the node. Each says so in a variable
        (C(kernel_expected) in C(roles/kernel/vars/main.yml)), and needs C(stack_resolved) of role C(stack).
      - A layer that is empty, or has a reason under C(not_applicable), is not looked at and needs nothing. One that
        lacks is C(not_looked_at).
    type: dict
  layers:
    description: The layers to look at; all by default.
    type: list
    elements: str
    choices: [platform, repository, kernel, driver, access, oneapi, python, model, service]
  api_key:
    description: Key to ask the service with.
    type: str
    default: ""
  root:
    description: Directory that holds the node's files; another than C(/) for a mounted system.
    type: path
    default: /
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
- name: Check the node against its stack
  xpu.fleet.node_audit:
    expected:
      kernel:
        release: 6.8.0-45-generic
        packages: {linux-image-6.8.0-45-generic: 6.8.0-45.45}
        holds: [linux-image-6.8.0-45-generic]
      oneapi: {}
    layers: [kernel, oneapi]
  register: found
"""

RETURN = r"""
status:
  description:
    - C(drift) where a layer has drift or is missing, else C(not_looked_at) where one was not looked at, else C(ok).
  type: str
  returned: success
layers:
  description: What was found, by layer.
  type: dict
  returned: success
  contains:
    status:
      description: C(ok), C(drift), C(missing), C(not_applicable) or C(not_looked_at).
      type: str
    reason:
      description: Why the layer does not apply, or nothing is known of it.
      type: str
    findings:
      description: What is not as expected, each with C(what), C(expected) and C(found).
      type: list
      elements: dict
    unseen:
      description: What could not be looked at, each with C(what) and C(why).
      type: list
      elements: dict
    looked_at:
      description: How many things were looked at.
      type: int
    versions:
      description: Versions that are there, by package (dpkg's, or those of the engine's environment).
      type: dict
    notes:
      description: What may not work though all is as expected, such as combinations that some have had trouble with.
      type: list
      elements: str
    seconds:
      description: How long it took.
      type: float
"""

from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.audit.audits import (  # noqa: E402
    audit,
    summary,
)
from ansible_collections.xpu.fleet.plugins.module_utils.audit.node import AuditedNode  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (  # noqa: E402
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import (  # noqa: E402
    SecretError,
    hide_secrets,
    token,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "expected": {"type": "dict"},
            "layers": {"type": "list", "elements": "str", "choices": list(NAMES)},
            "api_key": {"type": "str", "default": "", "no_log": True},
            "root": {"type": "path", "default": "/"},
        },
        supports_check_mode=True,
    )
    hide_secrets(module)
    options = module.params
    try:
        api_key = token(options["api_key"], "the first of inference_api_keys")
    except SecretError as error:
        module.fail_json(msg=f"{error}.")
    node = AuditedNode(Path(options["root"]), options["expected"] or {}, api_key=api_key)
    layers = audit(node, options["layers"] or NAMES)
    module.exit_json(changed=False, status=summary(layers), layers=layers)


if __name__ == "__main__":
    main()
