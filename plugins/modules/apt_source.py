#!/usr/bin/python
"""Ansible module: one apt repository in deb822 form, without conflicting sources."""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_source
short_description: Keep an apt repository in deb822 form and remove what contradicts it
version_added: "0.1.0"
description:
  - Writes the C(.sources) file of a repository. Unlike M(ansible.builtin.deb822_repository) it needs no python3-debian.
  - Removes files of the older one-line form that it supersedes, and every other file that names the same URI and suite
    with another C(Signed-By) and nothing else, because apt refuses to read both.
  - Files that it removes or writes over are kept, and M(xpu.fleet.file_restore) puts them back.
  - A file that names the same place with another keyring and further sources is an error that says what to edit.
author: The xpu.fleet developers (@xpu-fleet)
options:
  repository:
    description:
      - The repository, with C(uris), C(suites), C(components), C(architectures), C(keyring), C(sources), the file to
        write, and C(superseded), files to remove, or to edit where sources of others are in them. C(former) has the
        beginnings of URIs where the repository was once. C(key_url) and C(fingerprints) are for
        M(xpu.fleet.apt_keyring).
    type: dict
    required: true
  write:
    description: Whether to write the repository's file, or only to remove what contradicts it.
    type: bool
    default: true
  record:
    description: Name of the rollback record that keeps the former files, for M(xpu.fleet.file_restore).
    type: str
    default: repository
  directory:
    description: Where the files that were found are kept.
    type: path
    default: /var/lib/xpu-fleet/found
attributes:
  check_mode:
    description: Reads and compares, changes nothing.
    support: full
  diff_mode:
    description: Shows the file before and after, and the files that are removed.
    support: full
"""

EXAMPLES = r"""
- name: Ensure the graphics repository
  xpu.fleet.apt_source:
    repository: "{{ stack_resolved.repositories.graphics }}"
"""

RETURN = r"""
removed:
  description: Sources files that contradicted the repository.
  type: list
  elements: str
  returned: success
edited:
  description: Superseded sources files that the repository's own sources were taken out of; those of others stay.
  type: list
  elements: str
  returned: success
"""

import stat  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.record import remember_file  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.sources import (  # noqa: E402
    Repository,
    files_to_edit,
    files_to_remove,
    read_sources,
    source_files,
    without_own,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import write_durably  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402

_HEADER = "# Managed by Ansible (xpu.fleet).\n"
_MODE = 0o644
ROOT = Path("/")


def _difference(written: dict[Path, tuple[str, str]], removed: list[Path]) -> list[dict[str, Any]]:
    files = [
        *((str(path), str(path), *texts) for path, texts in written.items()),
        *((str(gone), "removed", read_sources(gone), "") for gone in removed),
    ]
    names = ("before_header", "after_header", "before", "after")
    return [dict(zip(names, map(hide_password, file))) for file in files]


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "repository": {"type": "dict", "required": True},
            "write": {"type": "bool", "default": True},
            "record": {"type": "str", "default": "repository"},
            "directory": {"type": "path", "default": "/var/lib/xpu-fleet/found"},
        },
        supports_check_mode=True,
    )
    try:
        repository = Repository.from_mapping(module.params["repository"])
        files = source_files(ROOT / "etc/apt")
        removed, edited = files_to_remove(repository, files), files_to_edit(repository, files)
    except FleetError as error:
        module.fail_json(msg=str(error))

    path = Path(repository.sources)
    before = read_sources(path)
    after = _HEADER + repository.stanza() if module.params["write"] else before
    trimmed = {place: without_own(repository, place.name, read_sources(place)) for place in edited}
    difference = _difference(
        {path: (before, after), **{place: (read_sources(place), text) for place, text in trimmed.items()}}, removed
    )
    changed = before != after or bool(removed or edited)
    if changed and not module.check_mode:
        try:
            for touched in [*removed, *edited, *([path] if before != after else [])]:
                remember_file(touched, module.params["record"], Path(module.params["directory"]))
        except FleetError as error:
            module.fail_json(msg=str(error))
        for gone in removed:
            gone.unlink()
        for place, text in trimmed.items():
            write_durably(place, text.encode("utf-8", "surrogateescape"), stat.S_IMODE(place.stat().st_mode))
            others = hide_password(", ".join(edited[place]))
            module.warn(f"{place} is superseded: this repository is removed from it, the others stay ({others}).")
        if before != after:
            write_durably(path, after.encode())
    if path.is_file():
        changed = module.set_mode_if_different(str(path), _MODE, changed)
    module.exit_json(
        changed=changed, removed=[str(gone) for gone in removed], edited=list(map(str, edited)), diff=difference
    )


if __name__ == "__main__":
    main()
