#!/usr/bin/python
"""Ansible module: the environment of oneAPI's setvars.sh as a systemd EnvironmentFile."""

from __future__ import annotations

DOCUMENTATION = r"""
module: oneapi_environment
short_description: Write what setvars.sh exports into a systemd EnvironmentFile
version_added: "0.1.0"
description:
  - Sources oneAPI's C(setvars.sh) in a clean environment and writes every variable that it sets or changes.
  - The values are whole, C(PATH) too, because systemd expands nothing in an environment file.
author: The xpu.fleet developers (@xpu-fleet)
options:
  script:
    description: The script to source.
    type: path
    default: /opt/intel/oneapi/setvars.sh
  arguments:
    description: Arguments for it.
    type: list
    elements: str
    default: []
  dest:
    description: The file to write. Without it the variables are returned only.
    type: path
  timeout:
    description: Seconds after which the script is given up.
    type: int
    default: 120
attributes:
  check_mode:
    description: Sources the script, writes nothing.
    support: full
  diff_mode:
    description: Shows the file before and after.
    support: full
"""

EXAMPLES = r"""
- name: Set oneAPI's environment of the service
  xpu.fleet.oneapi_environment:
    dest: /etc/xpuserve/oneapi.env
"""

RETURN = r"""
variables:
  description: What the script exports.
  type: dict
  returned: success
  sample: {MKLROOT: /opt/intel/oneapi/mkl/latest}
"""

import os  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.script_environment import (  # noqa: E402
    ScriptError,
    environment_file,
    exported_by,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import write_durably  # noqa: E402

_HEADER = "# Managed by Ansible (xpu.fleet): what {script} exports.\n"
_MODE = 0o644


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "script": {"type": "path", "default": "/opt/intel/oneapi/setvars.sh"},
            "arguments": {"type": "list", "elements": "str", "default": []},
            "dest": {"type": "path"},
            "timeout": {"type": "int", "default": 120},
        },
        supports_check_mode=True,
    )
    script = Path(module.params["script"])
    try:
        variables = exported_by(script, module.params["arguments"], module.params["timeout"])
    except ScriptError as error:
        module.fail_json(msg=str(error))
    if not module.params["dest"]:
        module.exit_json(changed=False, variables=variables)

    dest = Path(module.params["dest"])
    wanted = os.fsencode(_HEADER.format(script=script) + environment_file(variables))
    present = dest.read_bytes() if dest.is_file() else b""
    changed = wanted != present
    if changed and not module.check_mode:
        write_durably(dest, wanted)
    if dest.is_file():
        changed = module.set_mode_if_different(str(dest), _MODE, changed)
    module.exit_json(
        changed=changed,
        variables=variables,
        diff={
            "before_header": str(dest),
            "after_header": str(dest),
            "before": present.decode("utf-8", "replace"),
            "after": wanted.decode("utf-8", "replace"),
        },
    )


if __name__ == "__main__":
    main()
