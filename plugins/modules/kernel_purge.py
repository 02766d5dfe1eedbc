#!/usr/bin/python
"""Ansible module: remove kernels newer than the wanted one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_purge
short_description: Remove newer kernels, but never one that runs or is to stay
version_added: "1.0.0"
description:
  - Purges the packages of installed kernels whose release is newer than another one, together with metapackages that
    would bring them back.
  - Asks apt first what would go. It is an error, and nothing is removed, where that is a package of the running
    kernel, of O(newer_than) or of one in O(keep), a held package, one that somebody installed by hand, or where apt
    would install something instead. Packages that this collection holds for an earlier kernel go, held or not.
author: The xpu.fleet developers (@xpu-fleet)
options:
  newer_than:
    description: Kernels newer than this release go. It stays itself.
    type: str
    required: true
  keep:
    description: Releases of other kernels that stay.
    type: list
    elements: str
    default: []
  metapackages:
    description: Names of packages that depend on the newest kernel; those that are installed go, held or not.
    type: list
    elements: str
    default: []
  autoremove:
    description: Whether packages that nothing needs any more go as well, where anything goes.
    type: bool
    default: true
  running:
    description: In check mode, a release to take for the one that runs, which tells what will go once it does.
    type: str
  lock_timeout:
    description: Seconds to wait for another program that installs packages.
    type: int
    default: 600
attributes:
  check_mode:
    description: >-
      Asks apt and returns the same lists, removes nothing. Where an interrupted installation keeps apt from answering,
      only the packages are returned that would go by their names.
    support: full
  diff_mode:
    description: Shows the packages that go.
    support: full
"""

EXAMPLES = r"""
- name: Remove kernels newer than the stack's
  xpu.fleet.kernel_purge:
    newer_than: 6.8.0-31-generic
    metapackages: [linux-generic-hwe-22.04, linux-image-generic-hwe-22.04]
"""

RETURN = r"""
packages:
  description: The packages that go.
  type: list
  elements: str
  returned: success
releases:
  description: The kernels that go, the newest last.
  type: list
  elements: str
  returned: success
"""

import os  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.boot.kernel_names import (  # noqa: E402
    is_newer,
    objections,
    release_of,
    superfluous,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import (  # noqa: E402  # noqa: E402
    Simulation,
    apt_get,
    broken,
    pinned_names,
    simulate,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (  # noqa: E402
    Version,
    installed_packages,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.sources import (  # noqa: E402
    APT_ETC,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import (  # noqa: E402
    CommandError,
    run,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402

ROOT = Path("/")
#: The rollback record of the stack's kernel; its pins have the same name.
RECORD = "kernel"


class PurgeError(FleetError):
    """Removing the kernels would remove too much; the message says what."""


def purge(parameters: dict[str, Any], running: str, *, check: bool) -> dict[str, Any]:
    """Return the kernels to remove, and remove them unless in check mode."""
    packages = installed_packages()
    newer_than, metapackages = parameters["newer_than"], parameters["metapackages"]
    protected = list(dict.fromkeys([running, newer_than, *parameters["keep"]]))
    wanted = superfluous(packages, newer_than, metapackages, protected)
    removed: tuple[str, ...] = ()
    if wanted:
        command = ["purge", "-o", f"APT::Get::AutomaticRemove={'true' if parameters['autoremove'] else 'false'}"]
        held = {name for name, package in packages.items() if package.held}
        if held.intersection(wanted):
            command.append("--allow-change-held-packages")
        # The hold on the former kernel is the collection's own.
        own = pinned_names(RECORD, ROOT / APT_ETC.relative_to("/")).intersection(wanted)
        others = held.difference(metapackages, own)
        try:
            simulation = simulate([*command, *wanted])
            automatic = set(run(["apt-mark", "showauto"]).split())
            against = objections(simulation, wanted, protected, others, automatic)
            if against:
                raise PurgeError(
                    f"kernels newer than {newer_than} are not removed: {'; '.join(against)}. Remove these packages, or "
                    "allow apt to (apt-mark auto, apt-mark unhold); kernel_purge: false keeps the kernels."
                )
        except (CommandError, PurgeError):
            if not (check and broken()):
                raise
            # apt plans nothing while an installation is half done; repair that before removing anything.
            simulation = Simulation(tuple(wanted), ())
        removed = simulation.removed
        if not check:
            apt_get([*command, *wanted], parameters["lock_timeout"])
            left = sorted(set(wanted).intersection(installed_packages()))
            if left:
                raise PurgeError(f"apt-get purge left {', '.join(left)}")
    gone = {release_of(name) for name in removed if name.startswith(("linux-image-", "linux-modules-"))}
    return {
        "changed": bool(removed),
        "packages": sorted(removed),
        "releases": sorted((release for release in gone if is_newer(release, newer_than)), key=Version),
        "diff": {
            "before_header": "packages",
            "after_header": "packages",
            "before": "".join(f"{name}\n" for name in sorted(removed)),
            "after": "",
        },
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "newer_than": {"type": "str", "required": True},
            "keep": {"type": "list", "elements": "str", "default": []},
            "metapackages": {"type": "list", "elements": "str", "default": []},
            "autoremove": {"type": "bool", "default": True},
            "running": {"type": "str"},
            "lock_timeout": {"type": "int", "default": 600},
        },
        supports_check_mode=True,
    )
    running = module.params["running"]
    if running and not module.check_mode:
        module.fail_json(msg="'running' can be set only in check mode")
    try:
        result = purge(module.params, running or os.uname().release, check=module.check_mode)
    except FleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
