#!/usr/bin/python
"""Ansible module: the instances of a template unit, running with their present files."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_instances
short_description: Run exactly these instances of a systemd template unit
version_added: 0.1.0
description:
  - Enables and starts the instances that are wanted, stops and disables all others.
  - Restarts an instance that started before one of its inputs changed last. That is read from the times of the files,
    so a restart that an interrupted run still owed is made up for by the next.
  - Has systemd read its files again, and restarts an instance, where it has read others than there are now (a file that
    was removed has no time).
  - Restarts an instance whose process has other groups than its user has now.
  - Starting waits until a C(Type=notify) service is ready; a failure is reported with the end of its journal.
options:
  template:
    description: Name of the template unit without C(@.service).
    type: str
    required: true
  instances:
    description: The instances that shall run.
    type: list
    elements: str
    required: true
  inputs:
    description: Files and directories (or patterns of them) whose change makes a restart necessary.
    type: list
    elements: path
    default: []
author: The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Says what would be started, restarted and stopped.
    support: full
  diff_mode:
    description: Lists the same.
    support: full
"""

EXAMPLES = r"""
- name: Ensure one instance runs for each of two GPUs
  xpu.fleet.service_instances:
    template: xpuserve
    instances: ["0", "1"]
    inputs: [/etc/xpuserve/config.json, /opt/xpu/xpuserve.pyz]
"""

RETURN = r"""
started:
  description: Units that were started.
  type: list
  elements: str
  returned: success
restarted:
  description: Units that were restarted.
  type: list
  elements: str
  returned: success
stopped:
  description: Units that were stopped and disabled.
  type: list
  elements: str
  returned: success
"""

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.service_units import ServiceError, carry_out, plan, run  # noqa: E402


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "template": {"type": "str", "required": True},
            "instances": {"type": "list", "elements": "str", "required": True},
            "inputs": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        steps = plan(run, options["template"], options["instances"], options["inputs"])
        if steps.any and not module.check_mode:
            carry_out(run, steps)
    except ServiceError as error:
        module.fail_json(msg=str(error))
    done = {
        "unmask": steps.unmask,
        "read again": steps.reload,
        "enable": steps.enable,
        "start": steps.start,
        "restart": steps.restart,
        "stop and disable": steps.stop,
    }
    module.exit_json(
        changed=steps.any,
        started=list(steps.start),
        restarted=list(steps.restart),
        stopped=list(steps.stop),
        diff={"before": "", "after": "".join(f"{verb} {unit}\n" for verb, units in done.items() for unit in units)},
    )


if __name__ == "__main__":
    main()
