#!/usr/bin/python
"""Ansible module: limit the clients of the service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_filter
short_description: Limit who may connect to the service
version_added: "1.0.0"
description:
  - Tries whether systemd's IP filters filter on the node. A unit that may talk to nobody sends itself a packet.
  - Where they do, the unit's own settings are enough. Where they do not, as in containers without BPF, it writes rules
    for nftables, which the unit loads before it starts, and loads them.
  - Rules that are no longer needed are taken away.
options:
  ports:
    description: TCP ports of the service.
    type: list
    elements: int
    default: []
  clients:
    description: Networks and addresses that may connect; empty for all, which needs no filter.
    type: list
    elements: str
    default: []
  write:
    description: Whether to write and load rules, or only to look whether they can be had.
    type: bool
    default: true
author: The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Tries the filters, and says what would be written.
    support: full
  diff_mode:
    description: Shows the rules.
    support: full
"""

EXAMPLES = r"""
- name: Set who may connect
  xpu.fleet.service_filter:
    ports: [8000]
    clients: [192.0.2.0/24]
"""

RETURN = r"""
by:
  description: What filters, C(systemd), C(nftables), or C(nothing) where nothing has to.
  type: str
  returned: success
"""

from ansible_collections.xpu.fleet.plugins.module_utils.system.python_version import require_python  # noqa: E402

require_python()

from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import run_as_is  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import write_durably  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.ip_filter import (  # noqa: E402
    DROP_IN,
    RULES,
    TABLE,
    UNIT,
    expect_nft,
    load,
    loaded,
    rules,
    systemd_filters,
)

ROOT = Path("/")


def wanted(ports: list[int], clients: list[str]) -> tuple[str, dict[Path, str]]:
    """Return the filter to use, and its files, "" for files to remove. Raises FilterError."""
    gone = {ROOT / RULES: "", ROOT / DROP_IN: ""}
    if not clients:
        return "nothing", gone
    if systemd_filters(run_as_is):
        return "systemd", gone
    expect_nft(run_as_is)
    return "nftables", {ROOT / RULES: rules(ports, clients), ROOT / DROP_IN: UNIT}


def bring_about(files: dict[Path, str]) -> None:
    """Write and load the rules, or remove them. Raises FilterError."""
    for path, text in files.items():
        if text:
            write_durably(path, text.encode())
        elif path.exists():
            path.unlink()
    if files[ROOT / RULES]:
        load(run_as_is, str(ROOT / RULES))
    elif loaded(run_as_is):
        run_as_is(["nft", "delete", "table", "inet", TABLE])
    run_as_is(["systemctl", "daemon-reload"])


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "clients": {"type": "list", "elements": "str", "default": []},
            "write": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    options = module.params
    try:
        by, files = wanted(options["ports"], options["clients"])
        found = {path: path.read_text(encoding="utf-8") if path.is_file() else "" for path in files}
        lacking = bool(files[ROOT / RULES]) and not loaded(run_as_is)
        changed = options["write"] and (found != files or lacking)
        if changed and not module.check_mode:
            bring_about(files)
    except (FleetError, OSError) as error:
        module.fail_json(msg=f"{error}.")
    difference = [
        {"before_header": str(path), "after_header": str(path), "before": found[path], "after": files[path]}
        for path in files
        if found[path] != files[path]
    ]
    module.exit_json(changed=changed, by=by, diff=difference if changed else [])


if __name__ == "__main__":
    main()
