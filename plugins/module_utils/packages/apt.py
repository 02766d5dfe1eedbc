"""apt's offers and simulated transactions, real ones, and a private apt root for asking without changing the node."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import UPDATES, incomplete, is_interrupted
from ansible_collections.xpu.fleet.plugins.module_utils.packages.sources import (
    APT_ETC,
    Repository,
    files_to_edit,
    files_to_remove,
    read_sources,
    source_files,
    without_own,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import (
    PLAIN,
    CommandError,
    complaint_lines,
    complaints,
    result_of,
    run,
)

APT_LISTS = Path("/var/lib/apt/lists")
#: Preference files of this collection; they would bias a simulation towards an earlier run's pins.
OWN_PREFERENCES = "xpu-fleet*"
#: This collection's proxy setting for apt; a later run may have another one, or none.
OWN_PROXY = "*xpu-fleet-proxy"
#: dpkg keeps changed settings, without a question.
KEEP_SETTINGS = ("-oDpkg::Options::=--force-confdef", "-oDpkg::Options::=--force-confold")


def apt_get(arguments: Iterable[str], lock_timeout: int = 600) -> str:
    """Run apt-get, after waiting for other package managers. Raises CommandError."""
    return run(["apt-get", "-q", "-y", "-o", f"DPkg::Lock::Timeout={lock_timeout}", *KEEP_SETTINGS, *arguments])


@dataclass(frozen=True)
class Simulation:
    """The result of a simulated transaction."""

    removed: tuple[str, ...] = ()
    installed: tuple[str, ...] = ()
    #: Versions of the packages that it installs.
    versions: Mapping[str, str] = field(default_factory=dict, compare=False)


def simulate(arguments: Iterable[str], environment: Optional[Mapping[str, str]] = None) -> Simulation:
    """Simulate a transaction with these arguments of apt-get. Raises CommandError if apt-get refuses it."""
    return simulated(run(["apt-get", "-q", "--simulate", *arguments], environment=environment))


def simulated(output: str) -> Simulation:
    """Parse the output of ``apt-get --simulate``."""
    removed, installed, versions = [], [], {}
    for line in output.splitlines():
        action, _between, rest = line.partition(" ")
        if action in ("Remv", "Purg"):
            removed.append(rest.split()[0])
        elif action == "Inst":
            installed.append(rest.split()[0])
            # Brackets hold the installed version, parentheses the new one.
            coming = re.search(r"\((\S+)", rest)
            if coming:
                versions[installed[-1]] = coming[1]
    return Simulation(tuple(dict.fromkeys(removed)), tuple(dict.fromkeys(installed)), versions)


def available_versions(
    names: Iterable[str], options: Iterable[str] = (), environment: Optional[Mapping[str, str]] = None
) -> dict[str, list[str]]:
    """Return each name's versions in apt's lists, newest first; OPTIONS are apt's own."""
    wanted = sorted(set(names))
    versions: dict[str, list[str]] = {name: [] for name in wanted}
    if not wanted:
        return versions
    # apt-cache prints a notice for each unknown name and still answers for the others.
    for line in run(["apt-cache", "madison", *options, *wanted], (0, 100), environment).splitlines():
        columns = [column.strip() for column in line.split("|")]
        if len(columns) == 3 and not columns[2].endswith(" Sources"):
            found = versions.setdefault(columns[0], [])
            if columns[1] not in found:
                found.append(columns[1])
    return versions


def dependencies(name: str, options: Iterable[str] = (), environment: Optional[Mapping[str, str]] = None) -> list[str]:
    """Return the dependencies of a package, and theirs; nothing if apt's lists do not have it."""
    kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
    command = ["apt-cache", "depends", "--recurse", *(f"--no-{kind}" for kind in kinds), *options, name]
    lines = run(command, (0, 100), environment).splitlines()
    return [line for line in lines if line and not line.startswith((" ", "<"))]


@dataclass(frozen=True)
class Change:
    """A package that differs from its wanted version."""

    name: str
    installed: str  # "" if it is not installed
    wanted: str  # "" for any version

    def __str__(self) -> str:
        return f"{self.name}={self.wanted}" if self.wanted else self.name


def changes(packages: Mapping[str, str], installed: Mapping[str, str]) -> list[Change]:
    """Return the packages (name to version, "" for any) that differ from their wanted version."""
    return [
        Change(name, installed.get(name, ""), version)
        for name, version in packages.items()
        if name not in installed or version not in ("", installed[name])
    ]


def unknown(plan: Iterable[Change], available: Mapping[str, list[str]]) -> list[Change]:
    """Return the changes that apt's lists do not offer."""
    return [
        change
        for change in plan
        if not available.get(change.name) or (change.wanted and change.wanted not in available[change.name])
    ]


def pinned_names(record: str, etc: Path = APT_ETC) -> set[str]:
    """Return the packages that this collection pins and holds under the name of a rollback record."""
    try:
        text = (etc / f"preferences.d/xpu-fleet-{record}.pref").read_text(encoding="utf-8")
    except FileNotFoundError:
        return set()
    return set(re.findall(r"^Package: (\S+)$", text, re.MULTILINE))


def broken(updates: Path = Path("/") / UPDATES) -> list[str]:
    """Return what an interrupted dpkg or apt left half done, a sentence each."""
    found = ["an installation by dpkg was interrupted"] if is_interrupted(updates) else []
    audit = result_of(["dpkg", "--audit"])
    packages = incomplete(audit.output)
    if packages:
        found.append(f"not installed completely: {', '.join(packages)}")
    elif audit.status > 1:
        found.append(f"dpkg --audit failed: {complaints(audit.output + audit.error)}")
    # Without its locks: this waits for their holder only if there is something to do.
    check = result_of(["apt-get", "-q", "-o", "Debug::NoLocking=1", "check"])
    if check.status:
        found.append(f"apt-get check failed: {complaints(check.output + check.error)}")
    return found


class PrivateApt:
    """A private apt root in a directory: the node's settings and sources, without those of this collection."""

    def __init__(self, directory: Path, etc: Path = APT_ETC) -> None:
        self._directory = directory
        self._etc = etc
        self._options: list[str] = []
        self._environment: dict[str, str] = {}

    def _copy(self, part: str, is_own: Callable[[Path], bool]) -> None:
        """Copy a directory of the node's settings, without this collection's files."""
        (self._directory / part).mkdir(parents=True)
        for path in (self._etc / part).glob("*"):
            if path.is_file() and not is_own(path):
                shutil.copy(path, self._directory / part)

    def _copy_preferences(self) -> None:
        self._copy("preferences.d", lambda path: path.match(OWN_PREFERENCES))

    def available(self, names: Iterable[str]) -> dict[str, list[str]]:
        """Return each name's versions in the repositories, newest first."""
        return available_versions(names, self._options, self._environment)

    def dependencies(self, name: str) -> list[str]:
        """Return the dependencies of a package in the repositories, and theirs."""
        return dependencies(name, self._options, self._environment)

    def simulate(self, arguments: Iterable[str]) -> Simulation:
        """Simulate a transaction. Raises CommandError if it is impossible."""
        return simulate([*self._options, *arguments], self._environment)


class CandidateApt(PrivateApt):
    """The node's sources and some additional repositories.

    The node's lists are copied in first, so that unchanged ones are not downloaded again. Hooks that packages run
    after an update are switched off: they would write to the node.
    """

    def __init__(self, directory: Path, etc: Path = APT_ETC, lists: Path = APT_LISTS, proxy: str = "") -> None:
        super().__init__(directory, etc)
        self._lists = lists
        self._proxy = proxy
        # apt reads the file of this variable before the node's own configuration, which may set another proxy, and the
        # file of this option after it.
        self._environment = {"APT_CONFIG": str(directory / "first.conf")}
        self._options = ["-c", str(directory / "last.conf")]

    def prepare(self, repositories: Iterable[tuple[Repository, bytes]]) -> None:
        """Write sources, keyrings and configuration; each repository has its own trusted keys."""
        for name in ("sources.list.d", "keyrings", "cache/archives/partial"):
            (self._directory / name).mkdir(parents=True)
        self._copy_lists()
        self._copy_preferences()
        self._copy("apt.conf.d", lambda path: path.match(OWN_PROXY))
        files = source_files(self._etc)
        added = []
        for number, (repository, keys) in enumerate(repositories):
            added.append(repository)
            for path in [*files_to_remove(repository, files), Path(repository.sources)]:
                files.pop(path, None)
            keyring = self._directory / "keyrings" / f"{number}.gpg"
            keyring.write_bytes(keys)
            sources = self._directory / "sources.list.d" / f"xpu-fleet-{number}.sources"
            sources.write_text(repository.stanza(str(keyring)), encoding="utf-8")
        for path in files:
            text = read_sources(path)
            for repository in added:
                if path in files_to_edit(repository, files):
                    text = without_own(repository, path.name, text)
            copy = self._directory / "sources.list.d" / f"node-{path.name}"
            copy.write_bytes(text.encode("utf-8", "surrogateescape"))
        parts = f'Dir::Etc::Parts "{self._directory}/apt.conf.d/";\n'
        (self._directory / "first.conf").write_text(parts + self._proxies(), encoding="utf-8")
        (self._directory / "last.conf").write_text(self._configuration(), encoding="utf-8")

    def update(self) -> None:
        """Read every repository's index. Raises CommandError naming those that cannot be read or verified."""
        result = result_of(["apt-get", *self._options, "update", "-qq"], {**PLAIN, **self._environment})
        if result.status:
            lines = [line for line in result.error.splitlines() if line.startswith(("E:", "W:"))]
            raise CommandError("\n".join(dict.fromkeys(lines) or complaint_lines(result.error)))

    def install(self, wanted: Iterable[str]) -> Simulation:
        """Simulate an installation. Raises CommandError if it is impossible."""
        options = ["--no-install-recommends", "--allow-downgrades", "--allow-change-held-packages"]
        return self.simulate([*options, "install", *wanted])

    def _copy_lists(self) -> None:
        target = self._directory / "lists"
        (target / "partial").mkdir(parents=True)
        if self._lists.is_dir():
            for path in self._lists.iterdir():
                if path.is_file() and path.name != "lock":
                    shutil.copy2(path, target)  # with its time: apt sends that to the mirror

    def _configuration(self) -> str:
        lines = [
            f'Dir::State::Lists "{self._directory}/lists/";',
            f'Dir::Cache "{self._directory}/cache/";',
            'Dir::Etc::SourceList "/dev/null";',
            f'Dir::Etc::SourceParts "{self._directory}/sources.list.d/";',
            f'Dir::Etc::PreferencesParts "{self._directory}/preferences.d/";',
            'APT::Sandbox::User "root";',  # only root can read the directory
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


class FormerApt(PrivateApt):
    """The node's sources without those of this collection; caches are private, the state of packages is the node's."""

    def __init__(
        self, directory: Path, is_own_source: Callable[[Path], bool], lock_timeout: int, etc: Path = APT_ETC
    ) -> None:
        super().__init__(directory, etc)
        self._copy("sources.list.d", is_own_source)
        self._copy_preferences()
        settings = {
            "Dir::Etc::SourceParts": f"{directory}/sources.list.d/",
            "Dir::Etc::PreferencesParts": f"{directory}/preferences.d/",
            "Dir::Cache::pkgcache": "",
            "Dir::Cache::srcpkgcache": "",
            "APT::Get::AutomaticRemove": "false",
            "DPkg::Lock::Timeout": str(lock_timeout),
        }
        self._options = [f"-o{name}={value}" for name, value in settings.items()]

    def carry_out(self, arguments: Iterable[str]) -> None:
        """Run a transaction. Raises CommandError."""
        run(["apt-get", "-q", *self._options, *KEEP_SETTINGS, *arguments])
