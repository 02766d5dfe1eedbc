#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: zipapp
short_description: Install a Python package directory as one zip file
version_added: 0.1.0
description:
  - Zips the packages below a directory of the controller and copies the archive to the node, when it differs.
  - The same files always give the same bytes, so a second run changes nothing.
options:
  src:
    description:
      - Directory on the controller that holds one package or more. Files beside the packages, C(tests) and
        C(__pycache__) directories are left out.
    type: path
    required: true
  dest:
    description: Path of the archive on the node.
    type: path
    required: true
  package:
    description: Package that runs when Python is given the archive. It needs a C(__main__.py).
    type: str
    default: ""
  mode:
    description: Mode of the archive.
    type: raw
  owner:
    description: Owner of the archive.
    type: str
  group:
    description: Group of the archive.
    type: str
author:
  - The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Says whether the archive would change.
    support: full
  diff_mode:
    description: Lists the files in the archive before and after, by digest.
    support: full
"""

EXAMPLES = r"""
- name: Install the service
  xpu.fleet.zipapp:
    src: "{{ role_path }}/files/xpuserve"
    package: xpuserve
    dest: /opt/xpu/xpuserve.pyz
    mode: "0644"
"""

RETURN = r"""
checksum:
  description: SHA-1 of the archive.
  type: str
  returned: always
"""
