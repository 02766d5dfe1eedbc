#!/usr/bin/python
"""Ansible module: restore the files of a rollback record."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_restore
short_description: Restore the files of a rollback record
version_added: "1.0.0"
description:
  - M(xpu.fleet.apt_source) and M(xpu.fleet.apt_keyring) keep what they find before they change it. This puts it back,
    and removes what was not there.
  - Without a record nothing is done.
author: The xpu.fleet developers (@xpu-fleet)
options:
  record:
    description: Name of the rollback record.
    type: str
    required: true
  directory:
    description: Where the files that were found are kept.
    type: path
    default: /var/lib/xpu-fleet/found
attributes:
  check_mode:
    description: Says what would be removed and put back.
    support: full
  diff_mode:
    description: Lists the same.
    support: full
"""

EXAMPLES = r"""
- name: Remove the graphics repository
  xpu.fleet.file_restore:
    record: repository
"""

RETURN = r"""
removed:
  description: Files that were not there before.
  type: list
  elements: str
  returned: success
restored:
  description: Files that were there before.
  type: list
  elements: str
  returned: success
"""

import os  # noqa: E402
import shutil  # noqa: E402
from collections.abc import Mapping  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.record import (  # noqa: E402
    read_files,
    remove_empty,
    write_files,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import put_in_place  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402


def put_back(files: Mapping[str, str]) -> None:
    """Copy every saved file back to its place, and remove the others."""
    for path, kept in files.items():
        if not kept:
            Path(path).unlink(missing_ok=True)
        elif Path(kept).exists():  # an interrupted run has restored it already if the copy is missing
            partial = Path(f"{path}.xpu-fleet")  # a name that apt does not read
            partial.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            shutil.copy2(kept, partial)
            owner = Path(kept).stat()
            os.chown(partial, owner.st_uid, owner.st_gid)
            put_in_place(partial, Path(path))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "record": {"type": "str", "required": True},
            "directory": {"type": "path", "default": "/var/lib/xpu-fleet/found"},
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["directory"])
    try:
        records = read_files(directory)
        files = records.pop(module.params["record"], {})
        if files and not module.check_mode:
            put_back(files)
            write_files(records, directory)
            for kept in filter(None, files.values()):
                Path(kept).unlink(missing_ok=True)
            remove_empty([Path(kept) for kept in files.values() if kept], directory)
    except (FleetError, OSError) as error:
        module.fail_json(msg=f"Cannot restore the files of rollback record {module.params['record']}: {error}")
    removed = sorted(path for path, kept in files.items() if not kept)
    restored = sorted(path for path, kept in files.items() if kept)
    lines = [f"remove {path}\n" for path in removed] + [f"put back {path}\n" for path in restored]
    module.exit_json(
        changed=bool(files),
        removed=removed,
        restored=restored,
        diff={"before": "", "after": "".join(lines)} if files else {},
    )


if __name__ == "__main__":
    main()
