#!/usr/bin/python
"""Ansible module: can apt install these packages at these versions?"""

from __future__ import annotations

DOCUMENTATION = r"""
module: apt_pins
short_description: Check that apt can install packages at exact versions, before anything is changed
version_added: "0.1.0"
description:
  - Downloads the keys of repositories, checks their fingerprints, and reads the repositories together with the node's
    own sources in a private, temporary apt state. The node's own state stays as it is.
  - Fails with one message that names every package and version that no repository has, or the mirror that cannot be
    reached, or the dependencies that cannot be met when all of it is installed in one transaction.
  - Where every package is installed as wanted and every repository is set up as described, nothing is downloaded.
author: The xpu.fleet developers (@xpu-fleet)
options:
  packages:
    description: Package names with their exact version, or an empty string for any version.
    type: dict
    required: true
  repositories:
    description:
      - Repositories to read besides the node's own sources; dictionaries with C(uris), C(suites), C(components),
        C(architectures), C(key_url), C(fingerprints), C(keyring), C(sources) and C(superseded).
      - The node's files under C(sources) and C(superseded), and those that name the same place with another keyring,
        are left out.
    type: list
    elements: dict
    default: []
  refresh:
    description:
      - Whether to read the repositories. Without it the node's present lists are looked at, nothing is downloaded, and
        packages that they lack are returned as RV(unknown) and are no error.
    type: bool
    default: true
  stack:
    description:
      - The stack that the packages are for. Where it is set, combinations of O(gpus), O(kernel) and the packages
        that apt would bring are refused which are known not to work, and RV(warnings) has those that may not.
    type: str
    default: ""
  gpus:
    description: The GPUs, as M(xpu.fleet.gpu_info) tells them.
    type: list
    elements: dict
    default: []
  kernel:
    description: The kernel that is to run, as C(uname -r) says it.
    type: str
    default: ""
  known_bad_accepted:
    description: Names of such combinations that are warnings, and refused otherwise.
    type: list
    elements: str
    default: []
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
- name: Check that every pin can be installed
  xpu.fleet.apt_pins:
    repositories: "{{ stack_resolved.repositories.values() | select | list }}"
    packages: "{{ stack_resolved.kernel.packages }}"
"""

RETURN = r"""
plan:
  description: The packages that are not as wanted, with C(name), C(installed) and C(wanted); either version may be "".
  type: list
  elements: dict
  returned: success
install:
  description: All packages as apt takes them on its command line, C(name=version) or C(name).
  type: list
  elements: str
  returned: success
unknown:
  description: Those of the plan that the lists of apt do not offer, as C(name=version).
  type: list
  elements: str
  returned: success
removals:
  description: Packages that installing the plan would remove.
  type: list
  elements: str
  returned: success
warnings:
  description: What may not work once the plan is installed, a sentence each.
  type: list
  elements: str
  returned: success
"""

import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Iterable, Mapping  # noqa: E402
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.combination import REFUSE, Situation  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.known_bad import found  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import (  # noqa: E402
    APT_LISTS,
    CandidateApt,
    Change,
    Simulation,
    available_versions,
    broken,
    changes,
    unknown,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (  # noqa: E402
    installed_versions,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.key_lifetime import has_expired  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.openpgp import (  # noqa: E402
    KeyFileError,
    keyring_keys,
    normalize_fingerprint,
    select_keys,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.sources import (  # noqa: E402
    APT_ETC,
    Repository,
    files_to_edit,
    files_to_remove,
    source_files,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import (  # noqa: E402
    CommandError,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import (  # noqa: E402
    hide_password,
    read_url,
    use_proxy,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import hide_secrets  # noqa: E402


class PinError(FleetError):
    """The packages cannot be installed as requested; the message is for a person."""


def is_set_up(repository: Repository, etc: Path = APT_ETC) -> bool:
    """Tell whether a repository is set up on the node: sources, a keyring of pinned keys, no conflict."""
    sources, keyring = Path(repository.sources), Path(repository.keyring)
    if not sources.is_file() or not keyring.is_file():
        return False
    pinned = {normalize_fingerprint(fingerprint) for fingerprint in repository.fingerprints}
    files = source_files(etc)
    keys = keyring_keys(keyring.read_bytes())
    found = {key.fingerprint for key in keys}
    return (
        repository.stanza() in sources.read_text(encoding="utf-8")
        and bool(found)
        and found <= pinned
        and not any(has_expired(key.data, time.time()) for key in keys)
        and not files_to_remove(repository, files)
        and not files_to_edit(repository, files)
    )


def trusted_keys(repository: Repository) -> bytes:
    """Download a repository's key file and return its pinned keys."""
    url = hide_password(repository.key_url)
    try:
        return select_keys(read_url(repository.key_url), repository.fingerprints)
    except KeyFileError as error:
        raise PinError(f"key file {url} of {hide_password(repository.uris[0])}: {error}") from error


def check(
    packages: Mapping[str, str],
    plan: list[Change],
    repositories: list[Repository],
    *,
    proxy: str = "",
    etc: Path = APT_ETC,
    lists: Path = APT_LISTS,
) -> Simulation:
    """Check packages and the plan for them against the repositories; return what apt would do.

    Raises PinError if a repository cannot be read or the plan cannot be carried out.
    """
    keys = [(repository, trusted_keys(repository)) for repository in repositories]
    with tempfile.TemporaryDirectory(prefix="xpu-fleet-apt-") as directory:
        apt = CandidateApt(Path(directory), etc, lists, proxy)
        apt.prepare(keys)
        try:
            apt.update()
        except CommandError as error:
            raise PinError(f"apt cannot read every repository:\n{error}") from error
        available = apt.available(change.name for change in plan)
        missing = unknown(plan, available)
        if missing:
            raise PinError(_missing_message(missing, available))
        try:
            # Name met pins too: the rest of the plan must not change them.
            met = [Change(name, version, version) for name, version in packages.items() if version]
            return apt.install(dict.fromkeys(map(str, [*plan, *met])))
        except CommandError as error:
            if broken():
                # apt plans nothing while an installation is half done; the next transaction finishes that first.
                return Simulation()
            wanted = ", ".join(str(change) for change in plan)
            raise PinError(f"apt cannot install these together: {wanted}:\n{error}") from error


def _missing_message(missing: Iterable[Change], available: Mapping[str, list[str]]) -> str:
    lines = []
    for change in missing:
        versions = available[change.name]
        lines.append(f"  {change}: {'it has ' + ', '.join(versions) if versions else 'no package of that name'}")
    return "\n".join(["no repository has these packages at the stack's pinned version:", *lines])


def known_trouble(parameters: Mapping[str, Any], outcome: Simulation) -> list[str]:
    """Return possible problems of the new packages. Raises PinError for certain ones."""
    if not (parameters["stack"] and outcome.versions):
        return []
    stays = {name: version for name, version in installed_versions().items() if name not in outcome.removed}
    packages = {**stays, **outcome.versions}
    there = found(
        Situation(
            parameters["gpus"],
            parameters["kernel"],
            packages,
            parameters["stack"],
            accepted=parameters["known_bad_accepted"],
        )
    )
    there = [entry for entry in there if entry.of_packages]
    refused = [str(entry) for entry in there if entry.effect == REFUSE]
    if refused:
        raise PinError(f"apt would install packages that are known not to work: {'; '.join(refused)}")
    return [f"{entry}." for entry in there]


def _answer(parameters: Mapping[str, Any]) -> dict[str, Any]:
    packages = {name: str(version) for name, version in parameters["packages"].items()}
    repositories = [Repository.from_mapping(data) for data in parameters["repositories"]]
    plan = changes(packages, installed_versions())
    outcome = Simulation()
    lacking: list[Change] = []
    if not parameters["refresh"]:
        lacking = unknown(plan, available_versions(change.name for change in plan))
    elif plan or not all(is_set_up(repository) for repository in repositories):
        outcome = check(packages, plan, repositories, proxy=parameters["proxy"])
    return {
        "plan": [asdict(change) for change in plan],
        "install": [str(change) for change in changes(packages, {})],
        "unknown": [str(change) for change in lacking],
        "removals": list(outcome.removed),
        "warnings": known_trouble(parameters, outcome),
    }


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "packages": {"type": "dict", "required": True},
            "repositories": {"type": "list", "elements": "dict", "default": []},
            "refresh": {"type": "bool", "default": True},
            "stack": {"type": "str", "default": ""},
            "gpus": {"type": "list", "elements": "dict", "default": []},
            "kernel": {"type": "str", "default": ""},
            "known_bad_accepted": {"type": "list", "elements": "str", "default": []},
            "proxy": {"type": "str", "default": "", "no_log": True},
        },
        supports_check_mode=True,
        no_log=True,  # to syslog: URLs among the options may have a password
    )
    hide_secrets(module)
    try:
        use_proxy(module.params["proxy"])
        answer = _answer(module.params)
    except FleetError as error:
        module.fail_json(msg=hide_password(str(error)))
    module.exit_json(changed=False, **answer)


if __name__ == "__main__":
    main()
