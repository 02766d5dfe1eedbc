#!/usr/bin/python
"""Ansible module: drain instances of the service."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_drain
short_description: Drain instances of the service, bring them back, tell what they do
version_added: "1.0.0"
description:
  - Writes or removes the file that lets an instance tell gateways to send it no more requests.
  - Requests under way go on.
  - The file outlives the service, the gateway and a reboot of the node.
  - Tells which instances are drained and why, which serve, and which have requests.
options:
  state:
    description:
      - V(drained) drains the instances, V(serving) brings them back, also those that O(instances) no longer names.
      - V(unchanged) only looks.
    type: str
    choices: [drained, serving, unchanged]
    default: unchanged
  instances:
    description: Names of the instances; empty for those that the node knows.
    type: list
    elements: str
    default: []
  urls:
    description: Where each instance answers, in the order of O(instances).
    type: list
    elements: str
    default: []
  certificate:
    description: File of the certificate that the service has; empty where it speaks plain HTTP.
    type: path
    default: ""
  reason:
    description: Why they are drained, for people.
    type: str
    default: ""
  owner:
    description: Who drains them.
    type: str
    default: ""
  failed:
    description: Whether a change did not come to its end.
    type: bool
    default: false
  directory:
    description: Where the files are.
    type: path
    default: /etc/xpuserve
  api_key:
    description: Key that the service asks for.
    type: str
    default: ""
author: The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Tells what would change.
    support: full
  diff_mode:
    description: Lists the instances that are drained.
    support: full
"""

EXAMPLES = r"""
- name: Set the node as drained
  xpu.fleet.service_drain:
    state: drained
    instances: ["0"]
    urls: ["http://127.0.0.1:8000"]
    reason: the driver is changed
  register: drain

- name: Wait until nothing runs
  xpu.fleet.service_drain:
    instances: ["0"]
    urls: ["http://127.0.0.1:8000"]
  register: drain
  until: drain.busy | length == 0
"""

RETURN = r"""
drained:
  description: Name of each instance that is drained, to C(reason), C(owner), C(since) and C(failed).
  type: dict
  returned: success
serving:
  description: Instances that are ready and not drained.
  type: list
  elements: str
  returned: success
busy:
  description: A sentence for each instance that has requests.
  type: list
  elements: str
  returned: success
"""

import time  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.runtime import drain, service_units  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import (  # noqa: E402
    SecretError,
    hide_secrets,
    token,
)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["drained", "serving", "unchanged"], "default": "unchanged"},
            "instances": {"type": "list", "elements": "str", "default": []},
            "urls": {"type": "list", "elements": "str", "default": []},
            "certificate": {"type": "path", "default": ""},
            "reason": {"type": "str", "default": ""},
            "owner": {"type": "str", "default": ""},
            "failed": {"type": "bool", "default": False},
            "directory": {"type": "path", "default": drain.DIRECTORY},
            "api_key": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
    )
    hide_secrets(module)
    options = module.params
    try:
        api_key = token(options["api_key"], "the first of inference_api_keys")
    except SecretError as error:
        module.fail_json(msg=f"{error}.")
    directory, urls = Path(options["directory"]), dict(zip(options["instances"], options["urls"]))
    units = service_units.present(service_units.run, "xpuserve")
    known = options["instances"] or [unit.partition("@")[2].rpartition(".")[0] for unit in sorted(units)]
    everyone = list(dict.fromkeys([*known, *drain.drained(directory)]))
    before = drain.state(directory, everyone)
    after = before
    if options["state"] == "drained":
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        why = {"reason": options["reason"], "owner": options["owner"], "failed": options["failed"]}
        # The time of the first drain stays.
        after = {**before, **{name: {"since": since, **before.get(name, {}), **why} for name in known}}
    elif options["state"] == "serving":
        after = {}
    changed = after != before
    if changed and not module.check_mode:
        for name in everyone:
            drain.write(directory, name, drain.Drain(**after[name]) if name in after else None)
    # An instance without a known address serves where its process runs.
    serving = [
        name
        for name in known
        if name not in after
        and (drain.is_ready(urls[name], options["certificate"]) if name in urls else _is_active(name))
    ]
    module.exit_json(
        changed=changed,
        drained=after,
        serving=serving,
        busy=drain.busy(urls, api_key, options["certificate"]),
        diff={"before": _lines(before), "after": _lines(after)},
    )


def _is_active(name: str) -> bool:
    return service_units.run(["systemctl", "is-active", "--quiet", f"xpuserve@{name}.service"])[0] == 0


def _lines(drained: dict[str, dict[str, str]]) -> str:
    return "".join(f"drained {name}: {said['reason']}\n" for name, said in sorted(drained.items()))


if __name__ == "__main__":
    main()
