"""Layer repository: apt reads the stack's repositories, each with its pinned keys, without a conflicting source."""

from __future__ import annotations

import stat
import time
from collections.abc import Mapping
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.node import AuditedNode
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.packages.key_lifetime import has_expired
from ansible_collections.xpu.fleet.plugins.module_utils.packages.openpgp import (
    keyring_keys,
    normalize_fingerprint,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.sources import (
    Repository,
    files_to_edit,
    files_to_remove,
    source_files,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password

#: The header that module apt_source writes above a repository.
HEADER = "# Managed by Ansible (xpu.fleet).\n"


class RepositoryAudit(LayerAudit):
    """Checks sources and keyrings of the repositories that all packages need."""

    name = "repository"
    keys = frozenset({"repositories", "foreign_architectures"})

    def look(self, report: Report) -> None:
        """Check every repository, and apt's architectures."""
        look_at_repositories(self.node, self.expected.get("repositories", ()), report)
        with report.looking_at("foreign architectures"):
            known = (self.node.text("/var/lib/dpkg/arch") or "").split()
            for architecture in self.expected.get("foreign_architectures", ()):
                report.compare(
                    f"architecture {architecture}", "added", "added" if architecture in known else "not added"
                )


def look_at_repositories(node: AuditedNode, repositories: Any, report: Report) -> None:
    """Check sources, keyrings and conflicts of repositories; layer oneapi has its own."""
    for definition in repositories:
        repository = Repository.from_mapping(definition)
        with report.looking_at(repository.sources):
            _sources(node, repository, report)
        with report.looking_at(repository.keyring):
            _keyring(node, repository, report)
        with report.looking_at(f"sources that contradict {repository.sources}"):
            _contradictions(node, definition, repository, report)


def _sources(node: AuditedNode, repository: Repository, report: Report) -> None:
    text = node.text(repository.sources)
    if text is None:
        report.absent(repository.sources)
    else:
        _content(repository, text, report)
        _mode(node, repository.sources, report)


def _content(repository: Repository, text: str, report: Report) -> None:
    wanted = HEADER + repository.stanza()
    shown, found = hide_password(wanted), hide_password(text)
    if text != wanted and found == shown:
        shown, found = "the mirror's user and password", "others"
    report.compare(f"content of {repository.sources}", shown, found)


def _mode(node: AuditedNode, path: str, report: Report) -> None:
    report.compare(f"mode of {path}", "0644", f"{stat.S_IMODE(node.path(path).stat().st_mode):04o}")


def _keyring(node: AuditedNode, repository: Repository, report: Report) -> None:
    content = node.content(repository.keyring)
    if content is None:
        report.absent(repository.keyring)
        return
    wanted = {normalize_fingerprint(fingerprint) for fingerprint in repository.fingerprints}
    keys = keyring_keys(content)
    report.compare(f"keys of {repository.keyring}", wanted, {key.fingerprint for key in keys})
    if keys and all(has_expired(key.data, time.time()) for key in keys):
        report.compare(f"keys of {repository.keyring}", "a key that apt trusts", "expired")
    _mode(node, repository.keyring, report)


def _contradictions(node: AuditedNode, definition: Mapping[str, Any], repository: Repository, report: Report) -> None:
    # Below another root, its own paths exist too.
    moved = {
        **definition,
        "sources": str(node.path(repository.sources)),
        "superseded": [str(node.path(path)) for path in repository.superseded],
    }
    files = source_files(node.path("/etc/apt"))
    own = Repository.from_mapping(moved)
    doomed = [*files_to_remove(own, files), *files_to_edit(own, files)]
    shown = [f"/{path.relative_to(node.root)}" for path in doomed]
    report.compare(f"sources files that contradict {repository.sources}", [], shown)
