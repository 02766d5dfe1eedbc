#!/usr/bin/python
"""Ansible module: the GPUs of a node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: gpu_info
short_description: Find the GPUs of a node, and the system that drives them
version_added: "0.1.0"
description:
  - Reads sysfs and needs neither lspci nor root. Of a GPU's own firmware only root learns.
author: The xpu.fleet developers (@xpu-fleet)
options:
  root:
    description: Directory that holds C(sys), C(proc), C(lib), C(etc), C(run); another than C(/) for a mounted system.
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
- name: Read the GPUs
  xpu.fleet.gpu_info:
  register: found

- name: Set groups by family
  ansible.builtin.group_by:
    key: gpu_{{ item }}
  loop: "{{ found.families or ['none'] }}"
"""

RETURN = r"""
gpus:
  description: The GPUs that the roles use, in PCI order.
  type: list
  elements: dict
  returned: always
  contains:
    address:
      description: PCI address.
      type: str
      sample: "0000:03:00.0"
    id:
      description: PCI vendor and device.
      type: str
      sample: 8086:56a0
    name:
      description: Marketing name.
      type: str
      sample: Intel Arc A770
    family:
      description:
        - C(arc), C(arc-b), C(flex) or C(max), or C(unknown) for a card that is newer than the collection's list of
          ids; in RV(others) C(integrated) and C(other).
      type: str
      sample: arc
    driver:
      description: The bound kernel driver, or empty.
      type: str
      sample: i915
    driver_version:
      description: The driver's own version; the running kernel's where it came with that.
      type: str
    driver_out_of_tree:
      description: Whether the driver did not come with the kernel (DKMS).
      type: bool
    render_node:
      description: Path of the render node, or empty; by PCI address where udev makes that.
      type: str
      sample: /dev/dri/by-path/pci-0000:03:00.0-render
    card_node:
      description: Path of the card node, or empty.
      type: str
    memory_bytes:
      description: Local memory; 0 where the kernel tells none.
      type: int
      sample: 17179869184
    memory_bar_bytes:
      description: How much local memory the CPU can address.
      type: int
    resizable_bar:
      description: Whether that is more than the classic window of 256 MiB.
      type: bool
    numa_node:
      description: NUMA node, -1 where there is none.
      type: int
    link:
      description:
        - The PCIe link that the device reports, null for a device without one; C(reduced) says whether it is narrower
          or slower than it could be.
      type: dict
      sample: {address: "0000:03:00.0", width: 1, maximum_width: 1, speed: 2.5, maximum_speed: 2.5, reduced: false}
    slot_link:
      description: The link that reaches the mainboard; another than RV(gpus[].link) on cards with a switch inside.
      type: dict
      sample: {address: "0000:01:00.0", width: 8, maximum_width: 16, speed: 16.0, maximum_speed: 16.0, reduced: true}
    firmware:
      description: File, status and version of C(guc) and C(huc), as far as debugfs can be read.
      type: dict
      sample: {guc: {file: i915/dg2_guc_70.bin, status: RUNNING, version: 70.5.1}}
    virtual_functions:
      description: SR-IOV functions that are there.
      type: int
    maximum_virtual_functions:
      description: SR-IOV functions that could be there.
      type: int
    virtual_function_of:
      description: PCI address of the card that a virtual function belongs to, or empty.
      type: str
    kernel_modules:
      description:
        - Modules of the running kernel that claim the device; null where its modules are not visible, as in a
          container.
      type: list
      elements: str
      sample: [i915, xe]
    uncovered:
      description: Whether it is a card of Intel's that no stack is made for; those are in RV(others).
      type: bool
    lent:
      description: To what else than its own driver the card was given, such as C(bound to vfio-pci); or empty.
      type: str
    blocked:
      description:
        - Settings that keep its driver from binding, such as C(nomodeset) on the kernel's command line or a
          blacklist of modprobe; each with its place.
      type: list
      elements: str
lent:
  description:
    - GPUs that were given to virtual machines or to a program, in the form of RV(gpus). The roles leave them alone.
  type: list
  elements: dict
  returned: always
others:
  description:
    - GPUs that are reported and not used, in PCI order and the same form. They are integrated graphics, cards that no
      stack is made for, other vendors' cards, and virtual functions, which belong to virtual machines.
  type: list
  elements: dict
  returned: always
families:
  description: Families of RV(gpus), sorted.
  type: list
  elements: str
  returned: always
served:
  description: PCI addresses of the GPUs that instances of the service were given, whether those are still there or not.
  type: list
  elements: str
  returned: always
container:
  description: Whether the node is a container, whose kernel belongs to the host.
  type: bool
  returned: always
secure_boot:
  description:
    - Whether UEFI Secure Boot refuses modules that DKMS builds. Where shim's validation is off, or the key is
      enrolled with which DKMS signs on this node, it does not.
  type: bool
  returned: always
system:
  description: The node's system; what it does not tell is empty.
  type: dict
  returned: always
  contains:
    distribution:
      description: Name, C(Debian) and C(Ubuntu) as Ansible's facts have them.
      type: str
      sample: Ubuntu
    release:
      description: C(VERSION_ID) of os-release.
      type: str
      sample: "22.04"
    codename:
      description: C(VERSION_CODENAME) of os-release.
      type: str
      sample: jammy
    kernel:
      description: The running kernel, as C(uname -r) says it.
      type: str
      sample: 6.8.0-45-generic
    architecture:
      description: Machine, as C(uname -m) says it.
      type: str
      sample: x86_64
"""

from ansible_collections.xpu.fleet.plugins.module_utils.system.python_version import require_python  # noqa: E402

require_python()

from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpus import (  # noqa: E402
    all_gpus,
    is_container,
    served_gpus,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.os_release import SystemReadError, system  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.secure_boot import secure_boot  # noqa: E402


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"root": {"type": "path", "default": "/"}}, supports_check_mode=True)
    root = Path(module.params["root"])
    try:
        runs = system(root)
    except SystemReadError as error:
        module.fail_json(msg=f"{error}.")
    gpus = all_gpus(root)
    module.exit_json(
        changed=False,
        gpus=[gpu.as_dict() for gpu in gpus if gpu.free],
        lent=[gpu.as_dict() for gpu in gpus if gpu.used and not gpu.free],
        others=[gpu.as_dict() for gpu in gpus if not gpu.used],
        families=sorted({gpu.family for gpu in gpus if gpu.free}),
        served=served_gpus(root),
        container=is_container(root),
        secure_boot=secure_boot(root),
        system=runs,
    )


if __name__ == "__main__":
    main()
