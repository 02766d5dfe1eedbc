#!/usr/bin/python
"""Ansible module: record the state of packages before they change."""

from __future__ import annotations

DOCUMENTATION = r"""
module: package_record
short_description: Write down what packages were like before they are changed
version_added: "1.0.0"
description:
  - Adds the packages that the record does not have yet, each with its version, hold, and whether it was
    installed by hand. What is in the record already stays, so the record tells what was there before the first change.
  - Call it with O(state=before) when packages are about to change and with O(state=after) when they have. What came,
    went or moved along with them in between is added then.
  - M(xpu.fleet.package_restore) brings everything back.
author: The xpu.fleet developers (@xpu-fleet)
options:
  record:
    description: Name of the rollback record.
    type: str
    required: true
  packages:
    description:
      - Names of the packages that are about to change, those that will be removed included. dpkg need not know them.
    type: list
    elements: str
    default: []
  state:
    description: Whether they are about to change, or have changed.
    type: str
    choices: [before, after]
    default: before
  directory:
    description: Where records are kept.
    type: path
    default: /var/lib/xpu-fleet/found
attributes:
  check_mode:
    description: Says what would be added; writes nothing.
    support: full
  diff_mode:
    description: Shows the packages that are added.
    support: full
"""

EXAMPLES = r"""
- name: Set the rollback record before the driver
  xpu.fleet.package_record:
    record: driver
    packages: [intel-opencl-icd, level-zero]

- name: Set the rollback record of dependencies
  xpu.fleet.package_record:
    record: driver
    state: after
"""

RETURN = r"""
added:
  description: Names of the packages that were added to the record.
  type: list
  elements: str
  returned: success
"""

from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.record import (  # noqa: E402
    PackageState,
    Record,
    installed,
    read_record,
    write_record,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402


def begin(record: Record, packages: list[str], now: dict[str, PackageState]) -> list[str]:
    """Add the packages' present state, and note all others, which may change along; return the added names."""
    along = [] if record.before is None else record.settle(now, cut_off=True)
    record.before = now
    added = sorted(set(packages) - set(record.packages))
    record.packages.update({name: now.get(name, PackageState()) for name in added})
    return along + added


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "record": {"type": "str", "required": True},
            "packages": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["before", "after"], "default": "before"},
            "directory": {"type": "path", "default": "/var/lib/xpu-fleet/found"},
        },
        supports_check_mode=True,
    )
    name, directory = module.params["record"], Path(module.params["directory"])
    added: list[str] = []
    try:
        record = read_record(directory, name) or Record()
        if module.params["state"] == "before":
            added = begin(record, module.params["packages"], installed())
        elif record.before is not None:
            added = record.settle(installed())
        else:
            module.exit_json(changed=False, added=[])
        if not module.check_mode:
            write_record(directory, name, record)
    except FleetError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"Cannot write rollback record {name}: {error}")
    lines = [f"{package}: {record.packages[package]}\n" for package in added]
    module.exit_json(
        changed=bool(added),
        added=added,
        diff={"before_header": f"rollback record {name}", "before": "", "after": "".join(lines)} if added else {},
    )


if __name__ == "__main__":
    main()
