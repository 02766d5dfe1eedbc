#!/usr/bin/python
"""Ansible module: the kernel that a metapackage installs, if the running one is too old or too new."""

from __future__ import annotations

DOCUMENTATION = r"""
module: kernel_candidate
short_description: Find the kernel that a metapackage brings
version_added: "1.0.0"
description:
  - Returns the running kernel where it is in the range, else the newest that a metapackage depends on.
  - Fails where the metapackage is unknown, is held, or brings a kernel that is out of the range as well, or one that is
    known not to work with the node's GPUs.
author: The xpu.fleet developers (@xpu-fleet)
options:
  at_least:
    description: The oldest kernel that will do, such as C(6.12); the number of Ubuntu's ABI is compared too.
    type: str
    required: true
  before:
    description: A kernel that is too new, as is every newer one; none is where it is empty.
    type: str
    default: ""
  metapackage:
    description: A package that depends on the newest kernel of its line, such as C(linux-generic-hwe-24.04).
    type: str
    required: true
  stack:
    description: Name of the stack; empty where it does not matter whether GPUs work.
    type: str
    default: ""
  gpus:
    description: GPUs of the node, as RV(xpu.fleet.gpu_info#module:gpus).
    type: list
    elements: dict
    default: []
  known_bad_accepted:
    description: Names of known-bad combinations that are not refused.
    type: list
    elements: str
    default: []
  refresh:
    description: Whether to read the repositories in a directory of its own; else the node's present lists count.
    type: bool
    default: true
  proxy:
    description: URL of an HTTP proxy; the node's own settings decide where it is empty.
    type: str
    default: ""
attributes:
  check_mode:
    description: Reads only.
    support: full
  diff_mode:
    description: Changes nothing.
    support: none
"""

EXAMPLES = r"""
- name: Read which kernel drives an Arc B580
  xpu.fleet.kernel_candidate:
    at_least: "6.12"
    metapackage: linux-generic-hwe-24.04
"""

RETURN = r"""
release:
  description: The release of the kernel, as C(uname -r) says it.
  type: str
  returned: success
running:
  description: Whether that is the running kernel.
  type: bool
  returned: success
install:
  description: What apt has to install for it, the metapackage at its newest version; empty where it runs.
  type: list
  elements: str
  returned: success
  sample: [linux-generic-hwe-24.04=6.17.0-22.22~24.04.1]
packages:
  description: The kernel's own packages that the metapackage brings.
  type: list
  elements: str
  returned: success
"""

import os  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.boot.kernel_names import (  # noqa: E402
    Span,
    abi_of,
    belongs,
    release_of,
)
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.combination import REFUSE, Situation  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.known_bad import found  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import (  # noqa: E402
    CandidateApt,
    available_versions,
    dependencies,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (  # noqa: E402
    Version,
    installed_packages,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402


class CandidateError(FleetError):
    """No suitable kernel is available; the message is for a person."""


def candidate(metapackage: str, wanted: Span, running: str, brought: list[str], version: str = "") -> dict[str, Any]:
    """Return the newest kernel among the packages of a metapackage. Raises CandidateError."""
    releases = [release_of(name) for name in brought if name.startswith("linux-image-") and "-unsigned-" not in name]
    newest = max(filter(None, releases), key=lambda release: Version(abi_of(release)), default="")
    if not newest:
        raise CandidateError(
            f"this node runs kernel {running} and needs {wanted}, but its repositories have no {metapackage} with a "
            "kernel; check its apt sources, and the -updates suite among them"
        )
    if not wanted.has(newest):
        raise CandidateError(
            f"this node runs kernel {running} and needs {wanted}, and {metapackage} only installs {newest}; check its "
            "apt sources, or install the distribution's next release"
        )
    return {
        "release": newest,
        "running": False,
        "install": [f"{metapackage}={version}" if version else metapackage],
        "packages": sorted(name for name in brought if belongs(name, newest)),
    }


def check(release: str, stack: str, gpus: list[dict[str, Any]], accepted: Sequence[str] = ()) -> None:
    """Raise CandidateError if a kernel is known not to work with GPUs."""
    there = found(Situation(gpus, release, {}, stack, accepted=accepted)) if stack else []
    refused = [entry for entry in there if entry.effect == REFUSE and entry.kernels]
    if refused:
        raise CandidateError(
            f"kernel {release} would be installed, but is known not to work: {'; '.join(map(str, refused))}"
        )


def find(parameters: dict[str, Any], running: str) -> dict[str, Any]:
    """Return the kernel. Raises FleetError."""
    wanted = Span(parameters["at_least"], parameters["before"])
    if wanted.has(running):
        return {"release": running, "running": True, "install": [], "packages": []}
    metapackage = parameters["metapackage"]
    present = installed_packages().get(metapackage)
    if present and present.held:
        raise CandidateError(
            f"this node runs kernel {running} and needs {wanted}, but {metapackage} is held; run apt-mark unhold "
            f"{metapackage}"
        )
    if not parameters["refresh"]:
        newest = "".join(available_versions([metapackage])[metapackage][:1])
        return candidate(metapackage, wanted, running, dependencies(metapackage), newest)
    with tempfile.TemporaryDirectory(prefix="xpu-fleet-apt-") as directory:
        apt = CandidateApt(Path(directory), proxy=parameters["proxy"])
        apt.prepare([])
        apt.update()
        return candidate(metapackage, wanted, running, apt.dependencies(metapackage))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "at_least": {"type": "str", "required": True},
            "before": {"type": "str", "default": ""},
            "metapackage": {"type": "str", "required": True},
            "stack": {"type": "str", "default": ""},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "known_bad_accepted": {"type": "list", "elements": "str", "default": []},
            "refresh": {"type": "bool", "default": True},
            "proxy": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    try:
        result = find(module.params, os.uname().release)
        if not result["running"]:
            check(result["release"], *(module.params[name] for name in ("stack", "gpus", "known_bad_accepted")))
    except FleetError as error:
        module.fail_json(msg=hide_password(str(error)))
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
