#!/usr/bin/python
"""Ansible module: the Intel GPUs of a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Find the Intel GPUs of a node
version_added: "0.1.0"
description:
  - Reads sysfs; needs neither lspci nor root. Integrated graphics and other vendors' cards are left out.
author: The xpu.fleet developers (@xpu-fleet)
options:
  root:
    description: Directory that holds C(sys), C(proc) and C(run); another than C(/) for a mounted system.
    type: path
    default: /
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Find GPUs
  xpu.fleet.gpu_info:
  register: found
"""

RETURN = r"""
gpus:
  description: The discrete Intel GPUs in PCI order.
  type: list
  elements: dict
  returned: always
  sample:
    - {address: "0000:03:00.0", id: "8086:56a0", name: Intel Arc A770, family: arc, driver: i915,
       render_node: /dev/dri/renderD128, memory_bytes: 17179869184}
container:
  description: Whether the node is a container, whose kernel belongs to the host.
  type: bool
  returned: always
secure_boot:
  description: Whether UEFI Secure Boot is on.
  type: bool
  returned: always
"""

from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.gpus import find_gpus, is_container, secure_boot  # noqa: E402


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    root = Path(module.params["root"])
    module.exit_json(
        changed=False,
        gpus=[gpu.as_dict() for gpu in find_gpus(root / "sys")],
        container=is_container(root),
        secure_boot=secure_boot(root),
    )


if __name__ == "__main__":
    main()
