#!/usr/bin/python
"""Ansible module: a virtual environment with exactly the packages of a hashed requirements file."""

from __future__ import annotations

DOCUMENTATION = r"""
module: python_environment
short_description: Keep a virtual environment equal to a hashed requirements file
version_added: 0.1.0
description:
  - Reads what is installed (every file of every distribution, by size) and acts only on the difference. Packages that
    the file does not name are removed, damaged ones are installed again.
  - An environment whose interpreter does not run or has another version is built again beside the old, then swapped in.
  - In check mode nothing is fetched or changed.
options:
  directory:
    description: Directory of the environment.
    type: path
    required: true
  interpreter:
    description: Python that makes the environment; an absent one is accepted in check mode.
    type: path
    required: true
  requirements:
    description: Text of a pip requirements file, every line C(name==version) with its hashes.
    type: str
    required: true
  unhashed:
    description: Further C(name==version) pins for which the publisher has no hashes.
    type: list
    elements: str
    default: []
  sha256:
    description: SHA-256 of the wheels of I(unhashed) pins, by pin; those are then checked too.
    type: dict
    default: {}
  find_links:
    description: URLs or directories of the node with wheels.
    type: list
    elements: str
    default: []
  index_url:
    description: Package index; empty for the one that pip on the node is set to.
    type: str
    default: ""
  no_index:
    description: Take wheels from I(find_links) only.
    type: bool
    default: false
  proxy:
    description: Proxy for downloads.
    type: str
    default: ""
  minimum_free_bytes:
    description: Free space that building the environment needs; less is an error before anything is done.
    type: int
    default: 0
author: The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Says what is missing, damaged or superfluous.
    support: full
  diff_mode:
    description: Lists the distributions that come, go or are repaired.
    support: full
"""

EXAMPLES = r"""
- name: Install the engine
  xpu.fleet.python_environment:
    directory: /opt/xpu/engines/openvino
    interpreter: /usr/bin/python3
    requirements: "{{ lookup('ansible.builtin.file', 'openvino.txt') }}"
    find_links: [/opt/xpu/wheelhouse]
    no_index: true
"""

RETURN = r"""
python:
  description: Interpreter of the environment.
  type: str
  returned: always
missing:
  description: Pins that were not there.
  type: list
  elements: str
  returned: always
reason:
  description: Why the environment must be built again; empty if not.
  type: str
  returned: always
"""

import os  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.python_environment import (  # noqa: E402
    EnvironmentState,
    RuntimeSetupError,
    Sources,
    Wanted,
    apply,
    free_bytes,
    read_state,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import use_proxy  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import hide_secrets  # noqa: E402


def _listing(state: EnvironmentState, wanted: Wanted, *, after: bool) -> str:
    """The environment as text for a diff: the differences, or the wanted state."""
    if after:
        return "".join(f"{pin}\n" for pin in (state.missing if state.usable else wanted.pins()))
    lines = [f"{name}=={state.installed.get(name, '?')} (superfluous)" for name in state.extra]
    lines += [f"{Path(path).name} (damaged)" for path in state.damaged]
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "directory": {"type": "path", "required": True},
            "interpreter": {"type": "path", "required": True},
            "requirements": {"type": "str", "required": True},
            "unhashed": {"type": "list", "elements": "str", "default": []},
            "sha256": {"type": "dict", "default": {}},
            "find_links": {"type": "list", "elements": "str", "default": []},
            "index_url": {"type": "str", "default": ""},
            "no_index": {"type": "bool", "default": False},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "minimum_free_bytes": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
        no_log=True,  # to syslog: URLs among the options may have a password
    )
    hide_secrets(module)
    options = module.params
    os.umask(0o022)  # the service runs as another user than the one that installs
    wanted = Wanted(
        path=Path(options["directory"]),
        interpreter=Path(options["interpreter"]),
        requirements=options["requirements"],
        unhashed=options["unhashed"],
        sha256=options["sha256"],
        sources=Sources(options["find_links"], options["index_url"], options["no_index"]),
    )
    try:
        use_proxy(options["proxy"])
        state = read_state(wanted)
        free = free_bytes(wanted.path)
        if not state.usable and free < options["minimum_free_bytes"]:
            raise RuntimeSetupError(
                f"{wanted.path} needs {options['minimum_free_bytes'] / 1e9:.1f} GB and its file system has "
                f"{free / 1e9:.1f} GB free: free space, or mount a larger file system there"
            )
        if not state.satisfied and not module.check_mode:
            apply(wanted, state)
            left = read_state(wanted)
            if not left.satisfied:
                rest = left.reason or ", ".join([*left.missing, *left.damaged, *left.extra])
                raise RuntimeSetupError(f"{wanted.path} is wrong after the installation: {rest}")
    except FleetError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=not state.satisfied,
        python=str(wanted.path / "bin" / "python"),
        missing=list(state.missing) if state.usable else wanted.pins(),
        reason=state.reason,
        diff={"before": _listing(state, wanted, after=False), "after": _listing(state, wanted, after=True)},
    )


if __name__ == "__main__":
    main()
