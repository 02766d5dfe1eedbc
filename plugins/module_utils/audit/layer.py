"""Common part of all layers of an audit: packages, holds, files, and files that must be absent."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from typing import Any, ClassVar

from ansible_collections.xpu.fleet.plugins.module_utils.audit.node import AuditedNode
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import ABSENT, Report
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

_COMMON = frozenset({"packages", "holds", "files", "absent"})


class ExpectationError(FleetError):
    """A layer's expectation is malformed; the message says why."""


class LayerAudit:
    """Compares one layer of a node with its expectation. Each layer has a subclass in its own file."""

    name: ClassVar[str]
    #: Keys of the expectation beside those of every layer.
    keys: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, node: AuditedNode, expected: Mapping[str, Any]) -> None:
        """Take a node and the expectation of its layer."""
        self.node = node
        self.expected = expected
        unknown = sorted(set(expected) - self.keys - _COMMON)
        if unknown:
            raise ExpectationError(f"layer {self.name} does not know {', '.join(unknown)}")

    def look(self, report: Report) -> None:
        """Check what only this layer has."""

    def look_at_all(self, report: Report) -> None:
        """Check everything."""
        self._packages(report)
        self._holds(report)
        self._files(report)
        for path in self.expected.get("absent", ()):
            with report.looking_at(path):
                report.compare(path, ABSENT, "present" if self.node.exists(path, follow=False) else ABSENT)
        self.look(report)

    def _packages(self, report: Report) -> None:
        for name, version in self.expected.get("packages", {}).items():
            with report.looking_at(f"package {name}"):
                package = self.node.packages.get(name)
                if package is None:
                    report.absent(f"package {name}", version or "installed")
                    continue
                report.versions[name] = package.version
                if report.compare(f"package {name}", version or package.version, package.version):
                    report.compare(f"package {name}", "installed", package.status)

    def _holds(self, report: Report) -> None:
        for name in self.expected.get("holds", ()):
            with report.looking_at(f"hold of {name}"):
                package = self.node.packages.get(name)
                if package is not None:  # a missing one is named above
                    report.compare(f"hold of {name}", "held", "held" if package.held else "not held")

    def _files(self, report: Report) -> None:
        for path, wanted in self.expected.get("files", {}).items():
            with report.looking_at(path):
                if not self.node.exists(path):
                    report.absent(path)
                    continue
                self._attributes(report, path, wanted)
                if "sha256" in wanted:
                    checksum = self.node.sha256(path)
                    report.compare(f"content of {path}", f"sha256 {wanted['sha256']}", f"sha256 {checksum}")

    def _attributes(self, report: Report, path: str, wanted: Mapping[str, Any]) -> None:
        status = self.node.path(path).stat()
        owners = {user.uid: name for name, user in self.node.users.items()}
        groups = {number: name for name, (number, _members) in self.node.groups.items()}
        found = {
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "owner": owners.get(status.st_uid, str(status.st_uid)),
            "group": groups.get(status.st_gid, str(status.st_gid)),
            "size": status.st_size,
        }
        for attribute in found.keys() & wanted.keys():
            report.compare(f"{attribute} of {path}", wanted[attribute], found[attribute])
