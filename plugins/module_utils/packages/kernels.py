"""Kernels as packages: which belong to which release, which is newer, and what dpkg and apt say about them."""

from __future__ import annotations

import fcntl
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import total_ordering
from pathlib import Path

#: What a kernel's packages hold, as their names say it between "linux-" and the release.
_PARTS = "image|headers|modules|tools|cloud-tools|buildinfo|objects|signatures|kbuild|config|lib-rust"
#: Before that stands what the headers and tools that several kernels share are built for: "hwe-6.5-", "oem-6.5-",
#: "lowlatency-hwe-6.5-", "nvidia-6.5-", "intel-iotg-".
_PACKAGE = re.compile(
    rf"^linux-(?:(?!(?:firmware|source|doc)-)[a-z][a-z0-9+]*-(?:\d+(?:\.\d+)*-)?)*?"
    rf"(?:{_PARTS})-(?:[a-z][a-z0-9+]*-|\d+-(?:open-|server-)*(?=\d))*?"
    r"(?P<release>\d+\.\d+\.\d+(?:[-+.~][\w.+~-]*?)?)(?:-(?:unsigned|dbg|dbgsym))?$"
)
#: Metapackages, which follow the newest kernel of a flavour: "linux-generic-hwe-22.04", "linux-image-oem-22.04c",
#: "linux-headers-aws", "linux-modules-nvidia-535-generic-hwe-22.04", Debian's "linux-image-cloud-amd64".
_METAPACKAGE = re.compile(
    r"^linux-(?!(?:firmware|source|doc|base|libc|compiler|kbuild|config|support)-)(?:[a-z0-9+.]+-)*?"
    r"(?:generic|virtual|lowlatency|oem|aws|azure|gcp|gke|gkeop|ibm|intel|iotg|kvm|nvidia|oracle|raspi|realtime|rt|hwe|amd64|686|arm64)"
    r"(?:-[a-z0-9+.]+)*$"
)


class CommandError(Exception):
    """dpkg, apt or another command failed; the message has what it said."""


@total_ordering
class Version:
    """A version in the order of dpkg."""

    def __init__(self, text: str) -> None:
        """Read one: [epoch:]upstream[-revision]."""
        epoch, colon, rest = text.partition(":")
        self._epoch = int(epoch) if colon and epoch.isdecimal() else 0
        upstream, _between, revision = (rest if colon else text).rpartition("-")
        self._parts = (upstream or revision, revision if upstream else "")
        self._key = (self._epoch, *map(_key, self._parts))

    def __eq__(self, other: object) -> bool:
        """Tell whether dpkg takes both for the same."""
        return isinstance(other, Version) and self._key == other._key

    def __lt__(self, other: Version) -> bool:
        """Tell whether this one is older."""
        return self._key < other._key

    def __hash__(self) -> int:
        """Return the same for versions that are equal."""
        return hash(self._key)


def _key(part: str) -> tuple[tuple[tuple[int, ...], int], ...]:
    """Return what sorts a part of a version: in turns a text and a number.

    In a text '~' comes before its end, its end before letters, and letters before all else.
    """
    pairs = []
    for match in re.finditer(r"(\D*)(\d*)", part):
        text = tuple(-1 if c == "~" else ord(c) if c.isalpha() else ord(c) + 256 for c in match[1])
        pairs.append(((*text, 0), int(match[2] or 0)))
    return tuple(pairs)


def release_of(package: str) -> str:
    """Return the release that a kernel's package belongs to, "" for any other package.

    Headers that several kernels share name no flavour, or "common".
    """
    match = _PACKAGE.match(package)
    return match["release"] if match else ""


def is_metapackage(package: str) -> bool:
    """Tell whether a package's name is that of one which follows the newest kernel of a flavour."""
    return bool(_METAPACKAGE.match(package)) and not release_of(package)


def abi_of(release: str) -> str:
    """Return a release without its flavour: 6.8.0-31 of 6.8.0-31-generic."""
    return re.sub(r"-[a-z].*$", "", release)


def belongs(package: str, release: str) -> bool:
    """Tell whether a package is one of a kernel release, or shared by it."""
    own = release_of(package)
    abi = abi_of(release)
    return own != "" and (own in (release, abi) or own.startswith(f"{abi}-common"))


def is_newer(release: str, than: str) -> bool:
    """Tell whether a kernel release is newer than another one, whatever their flavours are."""
    return Version(abi_of(release)) > Version(abi_of(than))


@dataclass(frozen=True)
class Package:
    """A package as dpkg has it."""

    name: str
    version: str
    held: bool
    status: str


def installed_packages() -> dict[str, Package]:
    """Return every package that is installed, wholly or in part, by the name that apt gives it."""
    native = run(["dpkg", "--print-architecture"]).strip()
    fields = "${Package}\t${Architecture}\t${db:Status-Want}\t${db:Status-Status}\t${Version}\n"
    packages = {}
    for line in run(["dpkg-query", "-W", "-f", fields]).splitlines():
        name, architecture, want, status, version = line.split("\t")
        if status not in ("not-installed", "config-files"):
            full = name if architecture in (native, "all", "") else f"{name}:{architecture}"
            packages[full] = Package(full, version, want == "hold", status)
    return packages


@dataclass(frozen=True)
class Simulation:
    """What apt would do."""

    removed: tuple[str, ...]
    installed: tuple[str, ...]


def simulated(output: str) -> Simulation:
    """Read what ``apt-get --simulate`` printed."""
    removed, installed = [], []
    for line in output.splitlines():
        action, _between, rest = line.partition(" ")
        if action in ("Remv", "Purg"):
            removed.append(rest.split()[0])
        elif action == "Inst":
            installed.append(rest.split()[0])
    return Simulation(tuple(dict.fromkeys(removed)), tuple(dict.fromkeys(installed)))


def superfluous(
    packages: Iterable[str], newer_than: str, metapackages: Iterable[str], protected: Iterable[str]
) -> list[str]:
    """Return the packages of kernels newer than a release, and metapackages, but none of a protected release."""
    kept = list(protected)
    metas = set(metapackages)
    return sorted(
        name
        for name in packages
        if name in metas
        or (
            release_of(name)
            and is_newer(release_of(name), newer_than)
            and not any(belongs(name, release) for release in kept)
        )
    )


def objections(
    simulation: Simulation,
    wanted: Iterable[str],
    protected: Iterable[str],
    held: Iterable[str],
    automatic: Iterable[str],
) -> list[str]:
    """Return why a simulated removal must not be carried out.

    A metapackage that goes along depends on a kernel that goes, and would bring it back: that it was installed by hand
    is no reason to keep it.
    """
    named, kept, auto = set(wanted), list(protected), set(automatic)
    found = []
    for name in simulation.removed:
        owners = [release for release in kept if belongs(name, release)]
        if owners:
            found.append(f"{name} of kernel {owners[0]} would go")
        elif name in held:
            found.append(f"{name}, which is held, would go")
        elif name not in named and name not in auto and not is_metapackage(name):
            found.append(f"{name}, which was installed by hand, would go along")
    return found + [f"{name} would be installed" for name in simulation.installed]


def damaged_files(output: str) -> list[str]:
    """Return the files that ``dpkg --verify`` finds changed or missing, but for settings."""
    damaged = []
    for line in output.splitlines():
        match = re.match(r"(?P<result>missing|[?.\w]{9})\s+(?P<attribute>[a-z] )?\s*(?P<path>/.*)$", line)
        if match and not match["attribute"]:
            damaged.append(match["path"])
    return damaged


#: What dpkg says of packages that are not installed completely; the last one of those whose list of files is lost.
_AUDITED = re.compile(
    r"must be reinstalled|not yet configured|half configured|half installed|trigger processing|list control file"
)


def unfinished(output: str) -> list[str]:
    """Return the packages of which ``dpkg --audit`` says that they are not installed completely."""
    names = []
    for section in re.split(r"\n[ \t]*\n", output):
        if _AUDITED.search(" ".join(section.split())):
            names += re.findall(r"^ (\S+)", section, re.MULTILINE)
    return list(dict.fromkeys(names))


def without_lists(output: str) -> list[str]:
    """Return the packages whose list of files is lost, of ``dpkg --audit``'s output."""
    sections = [section for section in re.split(r"\n[ \t]*\n", output) if "list control file" in section]
    return [name for section in sections for name in re.findall(r"^ (\S+)", section, re.MULTILINE)]


def run(command: list[str], statuses: tuple[int, ...] = (0,), environment: Mapping[str, str] | None = None) -> str:
    """Run a command without asking anybody and return its output; raises CommandError with what it said."""
    result = result_of(command, environment)
    if result.returncode not in statuses:
        said = complaints(f"{result.stdout}\n{result.stderr}")
        raise CommandError(f"{' '.join(command[:2])} failed with status {result.returncode}: {said}")
    return result.stdout


def result_of(command: list[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command without asking anybody; 127 where it does not exist."""
    path = ":".join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    settings = {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive", "PATH": path}
    try:
        return subprocess.run(
            command,
            env={**os.environ, **settings, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(command, 127, "", f"there is no command {command[0]}")


def apt(arguments: list[str], lock_timeout: int = 600) -> str:
    """Run apt-get, which waits for others that install packages; raises CommandError."""
    options = ["-q", "-y", "-o", f"DPkg::Lock::Timeout={lock_timeout}"]
    options += ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]
    return run(["apt-get", *options, *arguments])


def wait_for_others(root: Path, seconds: float) -> bool:
    """Wait until nobody else installs packages; return whether somebody did. Raises CommandError after some time."""
    path = root / "var/lib/dpkg/lock-frontend"
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


def set_holds(verb: str, packages: Iterable[str], root: Path, lock_timeout: int = 600) -> None:
    """Let apt-mark "hold" or "unhold" packages once nobody else installs any, for which it does not wait by itself."""
    wait_for_others(root, lock_timeout)
    run(["apt-mark", verb, *packages])


def complaints(output: str) -> str:
    """Return the errors in what apt or dpkg printed, or the end of it."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if line.startswith(("E:", "dpkg: error"))]
    # After a package that it could not process, dpkg says why, and before it, the package's scripts what they met.
    why = {index + step for index in errors if lines[index].endswith(":") for step in (-2, -1, 1)}
    shown = sorted(index for index in {*errors, *why} if 0 <= index < len(lines))
    return " / ".join(dict.fromkeys([lines[index] for index in shown] or lines[-8:]))
