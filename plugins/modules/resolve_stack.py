"""Documentation of the action plugin resolve_stack, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: resolve_stack
short_description: Choose the stack of a node
version_added: "0.1.0"
description:
  - Reads the stack data on the controller, finds the GPUs of the node with M(xpu.fleet.gpu_info), and returns all that
    the roles of this collection need of the stack for it.
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
  root:
    description: Directory that holds the node's files, as for M(xpu.fleet.gpu_info).
    type: path
    default: /
  known:
    description:
      - GPUs that were found earlier. A node without a GPU that had one is not given a stack for CPUs unless that is
        named.
    type: list
    elements: dict
    default: []
  postponed:
    description: Variables that are checked once the stack is known, as RV(xpu.fleet.variable_types#module:postponed).
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
- name: Set the stack
  xpu.fleet.resolve_stack:
    directory: "{{ role_path }}/vars"
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
