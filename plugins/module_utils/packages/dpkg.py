"""dpkg's data about packages: versions and their order, states, holds, damage, and its lock."""

from __future__ import annotations

import fcntl
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.system.command import CommandError, run

#: dpkg's own, below the node's root.
STATUS = "var/lib/dpkg/status"
UPDATES = "var/lib/dpkg/updates"
_LOCK = "var/lib/dpkg/lock-frontend"
_QUERY = "${Package}\t${Architecture}\t${db:Status-Want}\t${db:Status-Status}\t${Version}\n"
#: dpkg's words for incompletely installed packages; the last one is of packages whose list of files is lost.
_AUDITED = re.compile(
    r"must be reinstalled|not yet configured|half configured|half installed|trigger processing|list control file"
)


@total_ordering
class Version:
    """A version, in dpkg's order."""

    def __init__(self, text: str) -> None:
        """Parse a version: [epoch:]upstream[-revision]."""
        epoch, colon, rest = text.partition(":")
        self._epoch = int(epoch) if colon and epoch.isdecimal() else 0
        upstream, _between, revision = (rest if colon else text).rpartition("-")
        self._parts = (upstream or revision, revision if upstream else "")
        self._key = (self._epoch, *map(_key, self._parts))

    def __eq__(self, other: object) -> bool:
        """Tell whether both are equal for dpkg."""
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        """Tell whether this one is older."""
        return self._key < other._key

    def __hash__(self) -> int:
        """Return the same hash for equal versions."""
        return hash(self._key)


def _key(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Return the sort key of a part of a version: text and number in turns.

    In a text '~' sorts before its end, its end before letters, and letters before all else.
    """
    pairs = []
    for match in re.finditer(r"(\D*)(\d*)", part):
        text = tuple(-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in match[1])
        pairs.append(((*text, 0), int(match[2] or 0)))
    return tuple(pairs)


@dataclass(frozen=True)
class Package:
    """A package in dpkg, by apt's name: that has the architecture if it is not the node's."""

    name: str
    version: str
    held: bool
    status: str  # dpkg's last status word: installed, unpacked, half-configured, config-files, ...

    @classmethod
    def of(cls, name: str, architecture: str, want: str, status: str, version: str, *, native: str) -> Package:
        """Make a package from dpkg's fields."""
        full = name if architecture in (native, "all", "") else f"{name}:{architecture}"
        return cls(full, version, want == "hold", status)

    @property
    def present(self) -> bool:
        """Whether it is installed, wholly or in part."""
        return self.status not in ("", "not-installed", "config-files")


def native_architecture() -> str:
    """Return the architecture of the node's own packages."""
    return run(["dpkg", "--print-architecture"]).strip()


def known_packages() -> dict[str, Package]:
    """Return every package of which dpkg has files or settings, by name. Raises CommandError."""
    native = native_architecture()
    rows = (line.split("\t") for line in run(["dpkg-query", "-W", "-f", _QUERY]).splitlines())
    packages = (Package.of(*row, native=native) for row in rows)
    return {package.name: package for package in packages if package.status != "not-installed"}


def installed_packages() -> dict[str, Package]:
    """Return every package that is installed, wholly or in part, by name. Raises CommandError."""
    return {name: package for name, package in known_packages().items() if package.present}


def installed_versions() -> dict[str, str]:
    """Return the version of every installed package of the node's own architecture. Raises CommandError."""
    packages = installed_packages().values()
    return {p.name: p.version for p in packages if p.status == "installed" and ":" not in p.name}


def packages_in(status: str) -> dict[str, Package]:
    """Return the same as installed_packages, from the text of dpkg's status file: no command runs."""
    stanzas = [_fields(stanza) for stanza in status.split("\n\n")]
    native = next((fields.get("Architecture", "") for fields in stanzas if fields.get("Package") == "dpkg"), "")
    packages = {}
    for fields in stanzas:
        want, _between, state = fields.get("Status", "").partition(" ")
        package = Package.of(
            fields.get("Package", ""),
            fields.get("Architecture", ""),
            want,
            state.rpartition(" ")[2],
            fields.get("Version", ""),
            native=native,
        )
        if fields.get("Package") and package.present:
            packages[package.name] = package
    return packages


def _fields(stanza: str) -> dict[str, str]:
    """Return the needed fields of a paragraph of dpkg's status."""
    fields = {}
    for line in stanza.splitlines():
        name, colon, value = line.partition(": ")
        if colon and name in ("Package", "Status", "Architecture", "Version"):
            fields[name] = value.strip()
    return fields


def is_interrupted(updates: Path) -> bool:
    """Tell whether dpkg was interrupted: its journal, the files of this directory, is not yet in its status."""
    return updates.is_dir() and any(path.name.isdecimal() for path in updates.iterdir())


def incomplete(output: str) -> list[str]:
    """Return the packages that ``dpkg --audit`` reports as incompletely installed."""
    names = []
    for section in _sections(output):
        if _AUDITED.search(" ".join(section.split())):
            names += _listed(section)
    return list(dict.fromkeys(names))


def without_lists(output: str) -> list[str]:
    """Return the packages whose list of files is lost, from ``dpkg --audit``'s output."""
    return [name for section in _sections(output) if "list control file" in section for name in _listed(section)]


def _sections(output: str) -> list[str]:
    return re.split(r"\n[ \t]*\n", output)


def _listed(section: str) -> list[str]:
    return re.findall(r"^ (\S+)", section, re.MULTILINE)


def damaged_files(output: str) -> list[str]:
    """Return the files that ``dpkg --verify`` finds changed or missing, except settings."""
    damaged = []
    for line in output.splitlines():
        match = re.match(r"(?P<result>missing|[?.\w]{9})\s+(?P<attribute>[a-z] )?\s*(?P<path>/.*)$", line)
        if match and not match["attribute"]:
            damaged.append(match["path"])
    return damaged


def wait_for_others(root: Path, seconds: float) -> bool:
    """Wait for other package managers; return whether one ran. Raises CommandError after a time limit."""
    path = root / _LOCK
    deadline = time.monotonic() + seconds
    waited = False
    while path.exists():
        with path.open("r+b") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                if time.monotonic() > deadline:
                    raise CommandError(f"another program has been installing packages for {seconds:g} s") from error
                waited = True
            else:
                break
        time.sleep(0.5)
    return waited


def mark(verb: str, packages: Iterable[str], root: Path, lock_timeout: float = 600) -> None:
    """Run apt-mark "hold", "unhold", "auto" or "manual" after other package managers ended: it does not wait itself."""
    wait_for_others(root, lock_timeout)
    run(["apt-mark", verb, *packages])
