#!/usr/bin/python
"""Ansible module: weights in a low-bit format, converted once."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_low_bit
short_description: Convert model weights to a low-bit format once
version_added: 0.1.0
description:
  - Runs the conversion of the service itself, as its user, without network or devices with one directory to write to.
  - Converts again only where the weights, the format or the engine are others than those of the last conversion, or
    where the result is damaged.
options:
  name:
    description: Name of the model, for messages.
    type: str
    required: true
  directory:
    description: Directory for the result.
    type: path
    required: true
  config:
    description: Configuration of the service, whose C(model) has the weights to read and the format to make.
    type: dict
    required: true
  digest:
    description: What tells these weights from others. Empty in check mode where they are not there yet.
    type: str
    required: true
  engine:
    description: What tells this engine from others.
    type: str
    required: true
  command:
    description: How to run the service.
    type: list
    elements: str
    required: true
  user:
    description: User that converts.
    type: str
    required: true
  environment_files:
    description: Files with environment variables for the engine.
    type: list
    elements: str
    default: []
author: The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Says whether weights would be converted.
    support: full
  diff_mode:
    description: Says why.
    support: full
"""

EXAMPLES = r"""
- name: Ensure the weights are converted
  xpu.fleet.model_low_bit:
    name: llama-2-7b-chat
    directory: /var/lib/xpu/models/llama-2-7b-chat-sym_int4
    config: "{{ config }}"
    digest: "{{ weights.digest }}"
    engine: bigdl-gpu
    command: [/opt/xpu/engines/bigdl-gpu/bin/python, /opt/xpu/xpuserve.pyz]
    user: xpuserve
"""

RETURN = r"""
path:
  description: Directory of the converted weights.
  type: str
  returned: success
reason:
  description: Why they were converted; empty where they were not.
  type: str
  returned: success
"""

import os  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.model.conversion import Conversion, convert  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import (  # noqa: E402
    StoreError,
    WeightsRequest,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.store import (  # noqa: E402
    read_stored,
    refresh,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "config": {"type": "dict", "required": True},
            "digest": {"type": "str", "required": True},
            "engine": {"type": "str", "required": True},
            "command": {"type": "list", "elements": "str", "required": True},
            "user": {"type": "str", "required": True},
            "environment_files": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    os.umask(0o022)
    made_from = {
        "kind": "low_bit",
        "location": options["name"],
        "low_bit": options["config"]["model"]["low_bit"],
        "engine": options["engine"],
        "digest": options["digest"],
    }
    request = WeightsRequest(directory=Path(options["directory"]), source=made_from, formats=["low_bit"])
    stored = read_stored(request)
    try:
        if not stored.reason and not module.check_mode:
            refresh(request, stored)
        elif stored.reason and not module.check_mode:
            convert(
                Conversion(
                    request=request,
                    config=options["config"],
                    command=options["command"],
                    user=options["user"],
                    environment_files=options["environment_files"],
                )
            )
    except StoreError as error:
        module.fail_json(msg=f"Model {options['name']}: {error}.")
    except (OSError, LookupError) as error:
        module.fail_json(msg=f"Model {options['name']}: the converted weights cannot be stored ({error}).")
    changed = bool(stored.reason or stored.touched or stored.closed)
    after = f"converted to {made_from['low_bit']}\n"
    module.exit_json(
        changed=changed,
        path=str(request.directory),
        reason=stored.reason,
        diff={"before": f"{stored.reason}\n", "after": after} if changed else {},
    )


if __name__ == "__main__":
    main()
