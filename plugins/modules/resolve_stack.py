"""Documentation of the action plugin resolve_stack, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: resolve_stack
short_description: Choose the stack of a node
version_added: "0.1.0"
description:
  - Reads the stack data on the controller and returns all that the roles of this collection need of it for one node.
  - Nothing runs on the node.
author: The xpu.fleet developers (@xpu-fleet)
options:
  directory:
    description: Directory of the stack data, one YAML file for each stack.
    type: path
    required: true
  stack:
    description: Name of a stack, or C(auto) to choose by the GPUs and the distribution of the node.
    type: str
    default: auto
  engine:
    description: Engine; empty for the first that the stack names.
    type: str
    default: ""
  device:
    description: C(gpu) or C(cpu); empty for C(gpu) where the stack serves GPUs.
    type: str
    default: ""
  oneapi_components:
    description: Parts of oneAPI to install beside the required ones.
    type: list
    elements: str
    default: []
  overrides:
    description: Values laid over the stack's data, in its shape.
    type: dict
    default: {}
  ppa:
    description: Whether to use the stack's optional repository.
    type: bool
    default: false
  dkms:
    description: C(always), C(never), or C(auto) for DKMS modules where the kernel is the node's own.
    type: str
    default: auto
  lost_gpus:
    description: PCI addresses of GPUs that were found earlier and are gone for good; they are not missed.
    type: list
    elements: str
    default: []
  known_bad_accepted:
    description: Names of known-bad combinations that are warnings then, and refused otherwise.
    type: list
    elements: str
    default: []
  gpus:
    description:
      - What M(xpu.fleet.gpu_info) found, RV(xpu.fleet.gpu_info#module:lent) included. A stack is chosen for the
        cards that are not lent.
    type: list
    elements: dict
    required: true
  known:
    description:
      - What it found earlier. A node without a GPU that had one is not given a stack for CPUs unless that is named.
    type: list
    elements: dict
    default: []
  served:
    description: RV(xpu.fleet.gpu_info#module:served) of M(xpu.fleet.gpu_info), which counts as found earlier.
    type: list
    elements: str
    default: []
  integrated:
    description: Whether the node has integrated graphics of Intel too.
    type: bool
    default: false
  uncovered:
    description: Intel's cards that no stack is made for. With no other card the node is refused but for a named stack.
    type: list
    elements: dict
    default: []
  container:
    description: Whether the node is a container.
    type: bool
    required: true
  secure_boot:
    description: Whether Secure Boot refuses modules of DKMS, as RV(xpu.fleet.gpu_info#module:secure_boot).
    type: bool
    required: true
  distribution:
    description: Name of the distribution, as RV(xpu.fleet.gpu_info#module:system.distribution).
    type: str
    required: true
  release:
    description: Its release (C(22.04), or C(12) for Debian).
    type: str
    required: true
  codename:
    description: Its code name.
    type: str
    required: true
  kernel:
    description: Running kernel, as C(uname -r) says it.
    type: str
    required: true
  architecture:
    description: Machine, as C(uname -m) says it.
    type: str
    required: true
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Choose the stack
  xpu.fleet.resolve_stack:
    directory: "{{ role_path }}/vars"
    gpus: "{{ found.gpus }}"
    container: "{{ found.container }}"
    secure_boot: "{{ found.secure_boot }}"
    distribution: "{{ found.system.distribution }}"
    release: "{{ found.system.release }}"
    codename: "{{ found.system.codename }}"
    kernel: "{{ found.system.kernel }}"
    architecture: "{{ found.system.architecture }}"
"""

RETURN = r"""
stack:
  description: The resolved stack. C(warnings) has what may not work on this node, a sentence each.
  type: dict
  returned: success
packages:
  description: Every package that the roles will install for it, with the exact version or an empty string.
  type: dict
  returned: success
ansible_facts:
  description: The fact that roles need beside the stack, so that none have to be gathered.
  type: dict
  returned: success
  contains:
    ansible_kernel:
      description: The running kernel.
      type: str
"""
