"""The audit's report about one layer of a node: differences, and what could not be checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.plain import one_line
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password

OK = "ok"
DRIFT = "drift"
MISSING = "missing"
NOT_APPLICABLE = "not_applicable"
NOT_LOOKED_AT = "not_looked_at"
ABSENT = "absent"


@dataclass(frozen=True)
class Finding:
    """One difference from the expectation."""

    what: str
    expected: str
    found: str


@dataclass(frozen=True)
class Unseen:
    """One thing that could not be checked."""

    what: str
    why: str


@dataclass
class Report:
    """The result of one layer. It counts its checks, so that a layer without any is never in order."""

    findings: list[Finding] = field(default_factory=list)
    unseen: list[Unseen] = field(default_factory=list)
    #: Values found, by name, as expected or not.
    versions: dict[str, str] = field(default_factory=dict)
    #: Warnings: what may fail although all is as expected, and no role can change.
    notes: list[str] = field(default_factory=list)
    looked_at: int = 0
    reason: str = ""
    applies: bool = True

    def compare(self, what: str, expected: Any, found: Any) -> bool:
        """Note a difference between two values; return whether they are equal."""
        self.looked_at += 1
        same = bool(expected == found)
        if not same:
            self.findings.append(Finding(what, _shown(expected), _shown(found)))
        return same

    def absent(self, what: str, expected: Any = "present") -> None:
        """Note that something is missing."""
        self.compare(what, expected, ABSENT)

    def not_seen(self, what: str, why: str) -> None:
        """Note that something could not be checked."""
        self.unseen.append(Unseen(what, why))

    @contextmanager
    def looking_at(self, what: str) -> Iterator[None]:
        """Guard one check: an exception counts as not checked, and the other checks still run."""
        try:
            yield
        except PermissionError as error:
            self.not_seen(what, f"{error.filename or 'this'} can only be read by another user")
        except Exception as error:
            # Any exception: an audit that stopped here would report nothing, and one that ignored it would call the
            # layer sound.
            self.not_seen(what, hide_password(f"{type(error).__name__}: {error}"))

    @property
    def status(self) -> str:
        """The layer's status in one word. An unchecked layer is never ok."""
        if not self.applies:
            return NOT_APPLICABLE
        if self.findings:
            nothing_there = len(self.findings) == self.looked_at and not self.unseen
            return MISSING if nothing_there and all(entry.found == ABSENT for entry in self.findings) else DRIFT
        return OK if self.looked_at and not self.unseen else NOT_LOOKED_AT

    def as_dict(self) -> dict[str, Any]:
        """Plain data for a module's result."""
        return {
            "status": self.status,
            "reason": self.reason,
            "findings": [asdict(finding) for finding in self.findings],
            "unseen": [asdict(unseen) for unseen in self.unseen],
            "looked_at": self.looked_at,
            "versions": self.versions,
            "notes": self.notes,
        }


def lines(layer: Mapping[str, Any]) -> list[str]:
    """Return a line for each difference and each unchecked item in a layer's plain data."""
    said = []
    for finding in layer.get("findings", ()):
        what, expected, found = (one_line(finding[key]) for key in ("what", "expected", "found"))
        said.append(f"{what}: expected {expected}, found {found}")
    return said + [
        f"{one_line(entry['what'])}: not looked at, {one_line(entry['why'])}" for entry in layer.get("unseen", ())
    ]


def _shown(value: Any) -> str:
    if isinstance(value, (list, tuple, set, frozenset)):
        return ", ".join(sorted(map(str, value))) or "none"
    return str(value)
