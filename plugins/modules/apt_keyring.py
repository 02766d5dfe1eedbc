#!/usr/bin/python
"""Ansible module: an apt keyring that holds pinned keys only."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_keyring
short_description: Keep an apt keyring of pinned OpenPGP keys
version_added: "0.1.0"
description:
  - Downloads a repository's key file, checks the fingerprints of its primary keys, and writes those that are pinned as
    a binary keyring that every user can read, for use with C(Signed-By).
  - Keys of the file that are not pinned are left out. A file without any pinned key is an error.
  - A keyring that already holds exactly the pinned keys is not downloaded again, unless one has expired. One that is
    armored, or damaged, is written again.
  - A keyring that it writes over is kept, and M(xpu.fleet.file_restore) puts it back.
  - Needs no gpg on the node.
author: The xpu.fleet developers (@xpu-fleet)
options:
  url:
    description: Where the key file is, binary or armored; http, https or file.
    type: str
    required: true
  fingerprints:
    description: Fingerprints of the primary keys to trust, 40 or 64 hexadecimal digits each.
    type: list
    elements: str
    required: true
  dest:
    description: The keyring to write.
    type: path
    required: true
  proxy:
    description: URL of an HTTP proxy; the node's environment decides where it is empty.
    type: str
    default: ""
  record:
    description: Name of the rollback record that keeps the former file, for M(xpu.fleet.file_restore).
    type: str
    default: repository
  directory:
    description: Where the files that were found are kept.
    type: path
    default: /var/lib/xpu-fleet/found
  force:
    description: Download even if every pinned key is there, for example because the vendor extended an expiry date.
    type: bool
    default: false
attributes:
  check_mode:
    description: Downloads and compares, writes nothing.
    support: full
  diff_mode:
    description: Shows the fingerprints before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install the repository's key
  xpu.fleet.apt_keyring:
    url: https://repositories.example.com/archive.key
    fingerprints: [0123456789ABCDEF0123456789ABCDEF01234567]
    dest: /usr/share/keyrings/example.gpg
"""

RETURN = r"""
fingerprints:
  description: Fingerprints of the primary keys that the keyring holds now.
  type: list
  elements: str
  returned: success
"""

import time  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.key_lifetime import has_expired  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.openpgp import (  # noqa: E402
    KeyFileError,
    keyring_fingerprints,
    keyring_keys,
    normalize_fingerprint,
    public_keys,
    select_keys,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.record import remember_file  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import (  # noqa: E402
    hide_password,
    read_url,
    use_proxy,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import write_durably  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import hide_secrets  # noqa: E402

_MODE = 0o644


def _wanted_keyring(module: AnsibleModule, present: bytes) -> bytes:
    pinned = [normalize_fingerprint(fingerprint) for fingerprint in module.params["fingerprints"]]
    known, now = keyring_keys(present), time.time()
    expired = any(has_expired(key.data, now) for key in known)
    if {key.fingerprint for key in known} == set(pinned) and not expired and not module.params["force"]:
        return present
    try:
        wanted = select_keys(read_url(module.params["url"]), pinned)
        ended = [key.fingerprint for key in public_keys(wanted) if has_expired(key.data, now)]
        if len(ended) == len(public_keys(wanted)):
            raise KeyFileError(
                f"key {', '.join(ended)} has expired, so apt rejects what it signed: get a new key from its owner"
            )
        return wanted
    except KeyFileError as error:
        raise KeyFileError(f"key file {hide_password(module.params['url'])}: {error}") from error


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "url": {"type": "str", "required": True},
            "fingerprints": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "dest": {"type": "path", "required": True},
            "proxy": {"type": "str", "default": "", "no_log": True},
            "record": {"type": "str", "default": "repository"},
            "directory": {"type": "path", "default": "/var/lib/xpu-fleet/found"},
            "force": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
        no_log=True,  # to syslog: URLs among the options may have a password
    )
    hide_secrets(module)
    dest = Path(module.params["dest"])
    present = dest.read_bytes() if dest.is_file() else b""
    try:
        use_proxy(module.params["proxy"])
        wanted = _wanted_keyring(module, present)
    except FleetError as error:
        module.fail_json(msg=str(error))

    changed = wanted != present
    if changed and not module.check_mode:
        try:
            remember_file(dest, module.params["record"], Path(module.params["directory"]))
        except FleetError as error:
            module.fail_json(msg=str(error))
        write_durably(dest, wanted)
    if not (changed and module.check_mode):
        changed = module.set_mode_if_different(str(dest), _MODE, changed)
    module.exit_json(
        changed=changed,
        fingerprints=[key.fingerprint for key in public_keys(wanted)],
        diff={
            "before_header": str(dest),
            "after_header": str(dest),
            "before": "".join(f"{fingerprint}\n" for fingerprint in keyring_fingerprints(present)),
            "after": "".join(f"{key.fingerprint}\n" for key in public_keys(wanted)),
        },
    )


if __name__ == "__main__":
    main()
