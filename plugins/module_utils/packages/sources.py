"""Sources of packages: a stack's repositories, the node's sources files, and conflicts between them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

APT_ETC = Path("/etc/apt")

_ONE_LINE = re.compile(r"^\s*(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)")
#: An entry disabled by a comment; a text that only begins like one has no URI.
_DISABLED = re.compile(r"^\s*#[\s#]*(?=deb(?:-src)?\s+(?:\[[^\]]*\]\s+)?[a-z][\w+.-]*:)")
#: An empty line ends a stanza; apt accepts Windows line ends too.
_BETWEEN = r"\n[ \t\r]*\n"
_URIS = re.compile(r"^URIs[ \t]*:.*\n(?:[ \t]+.*\n|#.*\n)*", re.MULTILINE | re.IGNORECASE)
_OPTION = re.compile(r"(?P<name>[\w-]+)\+?=(?P<value>\S+)")


class SourceError(FleetError):
    """A repository or a sources file is malformed or conflicts; the message says which and why."""


@dataclass(frozen=True)
class Source:
    """One entry of a sources file, for one URI and suite."""

    uri: str  # without a trailing slash
    suite: str
    signed_by: str  # path of the keyring, an embedded key, or "" for apt's own keyrings
    enabled: bool = True


@dataclass(frozen=True)
class Repository:
    """A repository from the data of a stack."""

    uris: list[str]
    suites: list[str]
    keyring: str
    sources: str
    components: list[str] = field(default_factory=list)
    architectures: list[str] = field(default_factory=list)
    key_url: str = ""
    fingerprints: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)
    #: Beginnings of its former URIs: entries with them in superseded files are removed, too.
    former: list[str] = field(default_factory=list)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Repository:
        """Make a repository from a stack's data. Raises SourceError naming unknown or missing keys."""
        known = set(cls.__dataclass_fields__)
        problems = [f"unknown key '{key}'" for key in sorted(set(data) - known)]
        problems += [f"no '{key}'" for key in ("uris", "suites", "keyring", "sources") if not data.get(key)]
        if problems:
            raise SourceError(hide_password(f"repository {data.get('uris') or data}: {', '.join(problems)}"))
        return cls(**data)

    def stanza(self, keyring: str = "") -> str:
        """Return its deb822 stanza, signed by its own keyring or by another file."""
        fields = {
            "Types": "deb",
            "URIs": " ".join(self.uris),
            "Suites": " ".join(self.suites),
            "Components": " ".join(self.components),
            "Architectures": " ".join(self.architectures),
            "Signed-By": keyring or self.keyring,
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)

    def places(self) -> set[tuple[str, str]]:
        """Return all its URIs and suites."""
        return {(uri.rstrip("/"), suite) for uri in self.uris for suite in self.suites}

    def is_own(self, uri: str) -> bool:
        """Tell whether a URI is a present or former one of its own (without former ones, any of its host)."""
        place = _without_scheme(uri)
        if place.rstrip("/") in [_without_scheme(own).rstrip("/") for own in self.uris] or place.startswith(
            tuple(map(_without_scheme, self.former))
        ):
            return True
        return not self.former and urlsplit(uri).hostname in [urlsplit(own).hostname for own in self.uris]

    def contradicted_by(self, source: Source) -> bool:
        """Tell whether a source prevents apt from reading this repository: same place, other keyring."""
        return source.enabled and (source.uri, source.suite) in self.places() and source.signed_by != self.keyring


def _without_scheme(uri: str) -> str:
    """Return a URI without http:// or https://: both are the same place, and old guides use http."""
    return re.sub(r"^https?://", "", uri)


def parse_sources(name: str, text: str) -> list[Source]:
    """Return the entries of a sources file, disabled ones too; its name gives the format, as for apt."""
    return list(_deb822_sources(text) if name.endswith(".sources") else _one_line_sources(text))


def read_sources(path: Path) -> str:
    """Return the text of a sources file with its original line ends, "" if it does not exist."""
    return path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else ""


def source_files(etc: Path = APT_ETC) -> dict[Path, list[Source]]:
    """Return every sources file that apt reads with its entries."""
    paths = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    return {
        path: parse_sources(path.name, read_sources(path))
        for path in paths
        if path.suffix in (".list", ".sources") and path.is_file()
    }


def files_to_remove(repository: Repository, files: Mapping[Path, list[Source]]) -> list[Path]:
    """Return the sources files to remove before a repository can be read.

    These are its superseded files, and files that contain only its entries, with another keyring. A superseded file
    with sources of others is not one of them (``files_to_edit``). Raises SourceError for another file with further
    sources, which a person has to edit.
    """
    own = Path(repository.sources)
    superseded = {Path(path) for path in repository.superseded}
    doomed = []
    for path, entries in files.items():
        if path in superseded and path != own:
            if any(entry.enabled for entry in entries) and all(repository.is_own(entry.uri) for entry in entries):
                doomed.append(path)
        elif path != own and any(repository.contradicted_by(entry) for entry in entries):
            others = [entry for entry in entries if (entry.uri, entry.suite) not in repository.places()]
            if others:
                raise SourceError(
                    f"{path} names {hide_password(repository.uris[0])} with another Signed-By than "
                    f"{repository.keyring}, and {hide_password(others[0].uri)} too. Remove the former from that file: "
                    "apt cannot read both."
                )
            doomed.append(path)
    return doomed


def files_to_edit(repository: Repository, files: Mapping[Path, list[Source]]) -> dict[Path, list[str]]:
    """Return the superseded files with sources of a repository and of others, and the others' URIs.

    Disabled entries of others count too.
    """
    edited = {}
    for name in repository.superseded:
        entries = files.get(Path(name), [])
        others = [entry.uri for entry in entries if not repository.is_own(entry.uri)]
        own = any(entry.enabled and repository.is_own(entry.uri) for entry in entries)
        if others and own and name != repository.sources:
            edited[Path(name)] = list(dict.fromkeys(others))
    return edited


def without_own(repository: Repository, name: str, text: str) -> str:
    """Return the text of a sources file without a repository's sources; the rest is unchanged."""
    if name.endswith(".sources"):
        stanzas = re.split(f"({_BETWEEN})", text)
        kept = [_foreign_stanza(repository, part) if number % 2 == 0 else part for number, part in enumerate(stanzas)]
        return re.sub(r"\A[\r\n]+|(?<=\n\n)\n+|(?<=\n\r\n)[\r\n]+", "", "".join(kept))
    lines = text.splitlines(keepends=True)
    return "".join(
        line
        for line in lines
        if not any(entry.enabled and repository.is_own(entry.uri) for entry in _one_line_sources(line))
    )


def _foreign_stanza(repository: Repository, stanza: str) -> str:
    uris = _deb822_fields(stanza).get("uris", "").split()
    others = [uri for uri in uris if not repository.is_own(uri)]
    if len(others) == len(uris):
        return stanza
    if not others:
        return ""
    return _URIS.sub(f"URIs: {' '.join(others)}\n", stanza if stanza.endswith("\n") else f"{stanza}\n", count=1).rstrip(
        "\n"
    )


def _deb822_sources(text: str) -> Iterator[Source]:
    for stanza in re.split(_BETWEEN, text):
        fields = _deb822_fields(stanza)
        enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off", "without", "disable")
        if not fields:  # or all of it is a comment
            fields, enabled = _deb822_fields(re.sub(r"(?m)^#[ \t]?", "", stanza)), False
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri.rstrip("/"), suite, fields.get("signed-by", ""), enabled)


def _deb822_fields(stanza: str) -> dict[str, str]:
    """Return the fields of a stanza by lower-case name; continuation lines are joined."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t":
            fields[name] = f"{fields.get(name, '')}\n{line.strip()}"
        else:
            name, _between, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _one_line_sources(text: str) -> Iterator[Source]:
    for line in text.splitlines():
        entry = _DISABLED.sub("", line)
        match = _ONE_LINE.match(entry)
        if match:
            options = {option["name"]: option["value"] for option in _OPTION.finditer(match["options"] or "")}
            yield Source(match["uri"].rstrip("/"), match["suite"], options.get("signed-by", ""), entry == line)
