"""What the collection's modules know about apt: sources, installed and available versions, and a private apt state.

Nothing here changes the node: commands only read, or work in a directory that the caller gives.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password

APT_ETC = Path("/etc/apt")
APT_LISTS = Path("/var/lib/apt/lists")
DPKG_UPDATES = Path("/var/lib/dpkg/updates")
#: Preference files that this collection writes; they would steer a simulation towards an earlier run's pins.
OWN_PREFERENCES = "xpu-fleet*"
#: The proxy that this collection wrote for apt; a later run may have another, or none.
OWN_PROXY = "*xpu-fleet-proxy"

_ONE_LINE = re.compile(r"^\s*(?P<type>deb|deb-src)\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)")
_OPTION = re.compile(r"(?P<name>[\w-]+)\+?=(?P<value>\S+)")

#: A package that a simulation installs: its name, in brackets the version that is there, and the one that comes.
_ARRIVING = re.compile(r"^Inst (?P<name>\S+)(?: \[\S+\])? \((?P<version>\S+)")


class AptError(Exception):
    """apt refused or could not do what was asked; the message says what and why."""


@dataclass(frozen=True)
class Source:
    """One enabled entry of a sources file, for one URI and suite."""

    uri: str  # without a trailing slash
    suite: str
    signed_by: str  # path of the keyring, an embedded key, or "" for apt's own keyrings


@dataclass(frozen=True)
class Repository:
    """A repository as the data of a stack describes it."""

    uris: list[str]
    suites: list[str]
    keyring: str
    sources: str
    components: list[str] = field(default_factory=list)
    architectures: list[str] = field(default_factory=list)
    key_url: str = ""
    fingerprints: list[str] = field(default_factory=list)
    superseded: list[str] = field(default_factory=list)

    @classmethod
    def from_mapping(cls, data: Mapping[str, Any]) -> Repository:
        """Make one from a stack's data; raises AptError naming keys that are unknown or absent."""
        known = set(cls.__dataclass_fields__)
        problems = [f"unknown key '{key}'" for key in sorted(set(data) - known)]
        problems += [f"no '{key}'" for key in ("uris", "suites", "keyring", "sources") if not data.get(key)]
        if problems:
            raise AptError(hide_password(f"repository {data.get('uris') or data}: {', '.join(problems)}"))
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
        """Return every URI and suite that it names."""
        return {(uri.rstrip("/"), suite) for uri in self.uris for suite in self.suites}

    def contradicted_by(self, source: Source) -> bool:
        """Tell whether apt would refuse to read this repository beside a source: same place, other keyring."""
        return (source.uri, source.suite) in self.places() and source.signed_by != self.keyring


def parse_sources(name: str, text: str) -> list[Source]:
    """Return the enabled entries of a sources file; its name tells the format, as it does for apt."""
    return list(_deb822_sources(text) if name.endswith(".sources") else _one_line_sources(text))


def source_files(etc: Path = APT_ETC) -> dict[Path, list[Source]]:
    """Return every sources file that apt reads with its enabled entries."""
    paths = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*"))]
    return {
        path: parse_sources(path.name, path.read_text(encoding="utf-8", errors="replace"))
        for path in paths
        if path.suffix in (".list", ".sources") and path.is_file()
    }


def files_to_remove(repository: Repository, files: Mapping[Path, list[Source]]) -> list[Path]:
    """Return the sources files that have to go before a repository can be read.

    These are its superseded files, and others that name it with another keyring and nothing else. Raises AptError for a
    file that holds further sources, which a person has to edit.
    """
    own = Path(repository.sources)
    superseded = {Path(path) for path in repository.superseded}
    doomed = []
    for path, entries in files.items():
        if path in superseded and path != own:
            doomed.append(path)
        elif path != own and any(repository.contradicted_by(entry) for entry in entries):
            others = [entry for entry in entries if (entry.uri, entry.suite) not in repository.places()]
            if others:
                raise AptError(
                    f"{path} names {hide_password(repository.uris[0])} with another Signed-By than"
                    f" {repository.keyring}, and {hide_password(others[0].uri)} besides. Remove the former from it: apt"
                    " refuses to read both."
                )
            doomed.append(path)
    return doomed


def installed_versions() -> dict[str, str]:
    """Return the version of every installed package of the node's own architecture."""
    native = _run(["dpkg", "--print-architecture"]).strip()
    listing = _run(["dpkg-query", "-W", "-f", "${Package}\t${Architecture}\t${db:Status-Status}\t${Version}\n"])
    rows = (line.split("\t") for line in listing.splitlines())
    return {
        name: version
        for name, architecture, status, version in rows
        if status == "installed" and architecture in (native, "all")
    }


def available_versions(
    names: Iterable[str], options: Iterable[str] = (), environment: Mapping[str, str] | None = None
) -> dict[str, list[str]]:
    """Return, for each name, the versions that apt's lists have, newest first; OPTIONS are apt's own."""
    wanted = sorted(set(names))
    versions: dict[str, list[str]] = {name: [] for name in wanted}
    if not wanted:
        return versions
    # With names it does not know, apt-cache prints a notice for each and still answers for the others.
    for line in _run(["apt-cache", "madison", *options, *wanted], environment, statuses=(0, 100)).splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) == 3 and not columns[2].endswith(" Sources"):
            found = versions.setdefault(columns[0], [])
            if columns[1] not in found:
                found.append(columns[1])
    return versions


@dataclass(frozen=True)
class Change:
    """A package that is not as wanted."""

    name: str
    installed: str  # "" where it is not installed
    wanted: str  # "" where any version will do

    def __str__(self) -> str:
        return f"{self.name}={self.wanted}" if self.wanted else self.name


@dataclass(frozen=True)
class Outcome:
    """What an installation would do: the packages that go, and the versions of those that come."""

    removed: list[str] = field(default_factory=list)
    arriving: dict[str, str] = field(default_factory=dict)


def changes(packages: Mapping[str, str], installed: Mapping[str, str]) -> list[Change]:
    """Return the packages (name to version, "" for any) that are not installed as wanted."""
    return [
        Change(name, installed.get(name, ""), version)
        for name, version in packages.items()
        if name not in installed or version not in ("", installed[name])
    ]


def unknown(plan: Iterable[Change], available: Mapping[str, list[str]]) -> list[Change]:
    """Return the changes that no list of apt offers."""
    return [
        change
        for change in plan
        if not available.get(change.name) or (change.wanted and change.wanted not in available[change.name])
    ]


def pinned_names(layer: str, etc: Path = APT_ETC) -> set[str]:
    """Return the packages that this collection prefers at a version, and holds, for a layer."""
    try:
        text = (etc / f"preferences.d/xpu-fleet-{layer}.pref").read_text(encoding="utf-8")
    except FileNotFoundError:
        return set()
    return set(re.findall(r"^Package: (\S+)$", text, re.MULTILINE))


def unfinished(updates: Path = DPKG_UPDATES) -> bool:
    """Tell whether an interrupted dpkg or apt left an installation half done."""
    if _run(["dpkg", "--audit"], statuses=(0, 1)).strip() or (updates.is_dir() and any(updates.iterdir())):
        return True
    return _result(["apt-get", "check", "-qq", "-o", "Debug::NoLocking=true"]).returncode != 0


class PrivateApt:
    """An apt state of its own in a directory: the node's sources and some repositories more.

    The node's lists are copied in first, so that what has not changed is not downloaded again. Hooks that packages run
    after an update are switched off: they would write to the node.
    """

    def __init__(self, directory: Path, etc: Path = APT_ETC, lists: Path = APT_LISTS, proxy: str = "") -> None:
        self._directory = directory
        self._etc = etc
        self._lists = lists
        self._proxy = proxy
        # apt reads the file of this variable before the node's own configuration, which may set another proxy, and the
        # file of this option after it.
        self._environment = {"APT_CONFIG": str(directory / "first.conf")}
        self._options = ["-c", str(directory / "last.conf")]

    def prepare(self, repositories: Iterable[tuple[Repository, bytes]]) -> None:
        """Write sources, keyrings and configuration; each repository comes with the keys to trust for it."""
        for name in ("apt.conf.d", "sources.list.d", "preferences.d", "keyrings", "cache/archives/partial"):
            (self._directory / name).mkdir(parents=True)
        self._copy_lists()
        for name, own in (("preferences.d", OWN_PREFERENCES), ("apt.conf.d", OWN_PROXY)):
            for path in (self._etc / name).glob("*"):
                if path.is_file() and not path.match(own):
                    shutil.copy(path, self._directory / name)
        files = source_files(self._etc)
        for number, (repository, keys) in enumerate(repositories):
            for path in [*files_to_remove(repository, files), Path(repository.sources)]:
                files.pop(path, None)
            keyring = self._directory / "keyrings" / f"{number}.gpg"
            keyring.write_bytes(keys)
            sources = self._directory / "sources.list.d" / f"xpu-fleet-{number}.sources"
            sources.write_text(repository.stanza(str(keyring)), encoding="utf-8")
        for path in files:
            shutil.copy(path, self._directory / "sources.list.d" / f"node-{path.name}")
        parts = f'Dir::Etc::Parts "{self._directory}/apt.conf.d/";\n'
        (self._directory / "first.conf").write_text(parts + self._proxies(), encoding="utf-8")
        (self._directory / "last.conf").write_text(self._configuration(), encoding="utf-8")

    def update(self) -> None:
        """Read every repository's index; raises AptError naming those that cannot be read or verified."""
        result = _result(["apt-get", *self._options, "update", "-qq"], self._environment)
        if result.returncode:
            raise AptError(_complaints(result))

    def available(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return, for each name, the versions that the repositories have, newest first."""
        return available_versions(names, self._options, self._environment)

    def simulate(self, wanted: Iterable[str]) -> Outcome:
        """Return what installing these would do; raises AptError where they cannot be installed."""
        options = [
            *self._options,
            "-q",
            "--simulate",
            "--no-install-recommends",
            "--allow-downgrades",
            "--allow-change-held-packages",
        ]
        result = _result(["apt-get", *options, "install", *wanted], self._environment)
        if result.returncode:
            raise AptError(_complaints(result))
        lines = result.stdout.splitlines()
        arriving = filter(None, map(_ARRIVING.match, lines))
        return Outcome(
            [line.split()[1] for line in lines if line.startswith(("Remv ", "Purg "))],
            {match["name"]: match["version"] for match in arriving},
        )

    def _copy_lists(self) -> None:
        target = self._directory / "lists"
        (target / "partial").mkdir(parents=True)
        if self._lists.is_dir():
            for path in self._lists.iterdir():
                if path.is_file() and path.name != "lock":
                    shutil.copy2(path, target)  # with its time, which is what apt asks the mirror about

    def _configuration(self) -> str:
        lines = [
            f'Dir::State::Lists "{self._directory}/lists/";',
            f'Dir::Cache "{self._directory}/cache/";',
            'Dir::Etc::SourceList "/dev/null";',
            f'Dir::Etc::SourceParts "{self._directory}/sources.list.d/";',
            f'Dir::Etc::PreferencesParts "{self._directory}/preferences.d/";',
            'APT::Sandbox::User "root";',  # the directory is private to root
            'APT::Update::Error-Mode "any";',
            'Acquire::Languages "none";',
            'Acquire::Retries "1";',
            'Acquire::http::Timeout "20";',
            'Acquire::https::Timeout "20";',
            "#clear APT::Update::Pre-Invoke;",
            "#clear APT::Update::Post-Invoke;",
            "#clear APT::Update::Post-Invoke-Success;",
        ]
        return "".join(f"{line}\n" for line in lines)

    def _proxies(self) -> str:
        schemes = ("http", "https") if self._proxy else ()
        return "".join(f'Acquire::{scheme}::Proxy "{self._proxy}";\n' for scheme in schemes)


def _deb822_sources(text: str) -> Iterator[Source]:
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields = _deb822_fields(stanza)
        if fields.get("enabled", "yes").lower() in ("no", "false", "0", "off", "without", "disable"):
            continue
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(uri.rstrip("/"), suite, fields.get("signed-by", ""))


def _deb822_fields(stanza: str) -> dict[str, str]:
    """Return the fields of a stanza by lower-case name, continuation lines joined."""
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
        match = _ONE_LINE.match(line)
        if match:
            options = {option["name"]: option["value"] for option in _OPTION.finditer(match["options"] or "")}
            yield Source(match["uri"].rstrip("/"), match["suite"], options.get("signed-by", ""))


def _complaints(result: subprocess.CompletedProcess[str]) -> str:
    """Return what apt says about a failure: its errors and warnings, and the unmet dependencies before them."""
    _between, found, unmet = result.stdout.partition("The following packages have unmet dependencies:\n")
    lines = unmet.splitlines() if found else []
    lines += [line for line in result.stderr.splitlines() if line.startswith(("E:", "W:"))]
    unique = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    return "\n".join(unique or [result.stderr.strip() or f"apt-get exited with status {result.returncode}"])


def _result(command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )


def _run(command: list[str], environment: Mapping[str, str] | None = None, statuses: tuple[int, ...] = (0,)) -> str:
    result = _result(command, environment)
    if result.returncode not in statuses:
        raise AptError(f"{' '.join(command[:2])} failed: {_complaints(result)}")
    return result.stdout
