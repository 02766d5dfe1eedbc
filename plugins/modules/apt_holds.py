#!/usr/bin/python
"""Ansible module: packages that apt keeps at their version."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_holds
short_description: Hold packages at their version, or let them go
version_added: "0.1.0"
description:
  - Reads the holds of all packages at once and sets those that differ at once.
author: The xpu.fleet developers (@xpu-fleet)
options:
  packages:
    description: Names of packages.
    type: list
    elements: str
    required: true
  state:
    description: Whether to hold them.
    type: str
    choices: [held, unheld]
    default: held
  lock_timeout:
    description: Seconds to wait for another program that installs packages.
    type: int
    default: 600
attributes:
  check_mode:
    description: Reads and compares, changes nothing.
    support: full
  diff_mode:
    description: Shows which of the packages are held before and after.
    support: full
"""

EXAMPLES = r"""
- name: Ensure the driver keeps its version
  xpu.fleet.apt_holds:
    packages: [intel-opencl-icd, level-zero]
"""

RETURN = r"""
packages:
  description: The packages whose hold was set or taken away.
  type: list
  elements: str
  returned: success
"""

from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (  # noqa: E402
    mark,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import run  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402

ROOT = Path("/")


def differing(packages: list[str], held: set[str], hold: bool) -> list[str]:
    """Return the packages whose hold is not as wanted, sorted."""
    return sorted(name for name in set(packages) if (name in held) != hold)


def _listing(packages: set[str]) -> str:
    return "".join(f"{name}\n" for name in sorted(packages))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "list", "elements": "str", "required": True},
            "state": {"type": "str", "choices": ["held", "unheld"], "default": "held"},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    packages: list[str] = module.params["packages"]
    hold = module.params["state"] == "held"
    try:
        held = set(run(["apt-mark", "showhold"]).split())
        change = differing(packages, held, hold)
        if change and not module.check_mode:
            mark("hold" if hold else "unhold", change, ROOT, module.params["lock_timeout"])
    except (FleetError, OSError) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=bool(change),
        packages=change,
        diff={
            "before_header": "held packages",
            "after_header": "held packages",
            "before": _listing(held.intersection(packages)),
            "after": _listing(set(packages) if hold else set()),
        },
    )


if __name__ == "__main__":
    main()
