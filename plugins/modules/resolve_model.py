#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: resolve_model
short_description: Decide which weights a node serves
version_added: 0.1.0
description:
  - Chooses the source of a model in a format that the engine reads, and checks low-bit format, remote code, context
    length and memory. Contacts nothing.
options:
  request:
    description: What is asked for, and what there is to choose from.
    type: dict
    required: true
    suboptions:
      name:
        description: Name of a model of the catalogue.
        type: str
        required: true
      catalogue:
        description: The models by name, in the shape of C(roles/model/vars/main.yml).
        type: dict
        required: true
      engines:
        description: File formats and low-bit formats of every engine.
        type: dict
        required: true
      bits_per_weight:
        description: Bits that a weight takes in every low-bit format.
        type: dict
        required: true
      source:
        description: Where weights come from instead of the catalogue's place.
        type: dict
        default: {}
      revision:
        description: Branch, tag or commit of a repository on the hub.
        type: str
        default: ""
      low_bit:
        description: Low-bit format; empty for the file as it is.
        type: str
        default: ""
      context_length:
        description: Tokens of context to serve; 0 for the model's own.
        type: int
        default: 0
      trust_remote_code:
        description: Whether code that comes with the weights may run.
        type: bool
        default: false
      engine:
        description: Engine of the service.
        type: str
        required: true
      device:
        description: C(gpu) or C(cpu).
        type: str
        required: true
  gpus:
    description: The node's GPUs, with C(memory_bytes).
    type: list
    elements: dict
    default: []
  memory_mb:
    description: The node's memory in MiB.
    type: int
    default: 0
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
- name: Set the model
  xpu.fleet.resolve_model:
    request:
      name: smollm2-135m-instruct
      catalogue: "{{ model_catalogue }}"
      engines: "{{ model_engines }}"
      bits_per_weight: "{{ model_bits_per_weight }}"
      engine: openvino
      device: cpu
    memory_mb: 16384
"""

RETURN = r"""
model:
  description: The plan, with source, formats, low_bit, memory_bytes and what the service has to know.
  type: dict
  returned: success
"""
