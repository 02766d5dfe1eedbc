#!/usr/bin/python
"""Ansible module: one run's lock on the fleet."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_lock
short_description: Take, renew, read or release the lock of a rolling change
version_added: "1.0.0"
description:
  - One run at a time changes a fleet. The lock says whose run that is, why, and when it was heard from last.
  - Fails where another run has the lock.
options:
  state:
    description: V(taken) takes the lock or renews it, V(released) removes the run's own, V(unchanged) only reads.
    type: str
    choices: [taken, released, unchanged]
    default: unchanged
  lock:
    description: What P(xpu.fleet.upgrade_owner#filter) returns.
    type: dict
    default: {}
  replaces:
    description: The run whose lock may be taken over; empty for none.
    type: str
    default: ""
  file:
    description: Where the lock is.
    type: path
    default: /var/lib/xpu-fleet/upgrade.lock
author: The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Reads, and tells what would change.
    support: full
  diff_mode:
    description: Shows nothing of the lock.
    support: none
"""

EXAMPLES = r"""
- name: Set the lock
  xpu.fleet.fleet_lock:
    state: taken
    lock: "{{ 'new driver' | xpu.fleet.upgrade_owner }}"
"""

RETURN = r"""
found:
  description: The lock that was there; empty where there was none.
  type: dict
  returned: success
"""

from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.lock import (  # noqa: E402
    LockError,
    read,
    release,
    take,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "released", "unchanged"], "default": "unchanged"},
            "lock": {"type": "dict", "default": {}},
            "replaces": {"type": "str", "default": ""},
            "file": {"type": "path", "default": "/var/lib/xpu-fleet/upgrade.lock"},
        },
        supports_check_mode=True,
    )
    options, path = module.params, Path(module.params["file"])
    found = read(path)
    changed = options["state"] != "unchanged" and (options["state"] == "taken" or bool(found))
    if not module.check_mode:
        try:
            if options["state"] == "taken":
                found = take(path, options["lock"], options["replaces"])
            elif options["state"] == "released":
                changed = release(path, options["lock"].get("run", ""))
        except LockError as error:
            module.fail_json(msg=str(error), found=read(path))
    module.exit_json(changed=changed, found=found)


if __name__ == "__main__":
    main()
