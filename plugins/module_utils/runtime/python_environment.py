"""A virtual environment that matches a requirements file: compare, then build, repair or leave alone.

The comparison uses the files themselves (every RECORD of every distribution), never a marker of an
earlier run, so an environment that a killed run left half done is found and finished.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional
from urllib.parse import urlsplit

from ansible_collections.xpu.fleet.plugins.module_utils.system.command import CommandResult, result_of
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError
from ansible_collections.xpu.fleet.plugins.module_utils.system.place import is_own

# Contents of a new environment; never counted as superfluous.
BASE_DISTRIBUTIONS = frozenset({"pip", "setuptools", "wheel"})
#: Environment variables that would redirect Python or pip.
_FOREIGN = ("PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV")
_PIP_SECONDS = 3 * 60 * 60
_PROBE_SECONDS = 300

# Runs in the environment's own interpreter: prints missing requirements and damaged distributions.
_PROBE = r"""
import base64, csv, hashlib, json, re, sys
from email import message_from_string
from importlib import metadata
from pathlib import Path

try:
    from pip._vendor.packaging.requirements import Requirement
except ImportError:
    print(json.dumps({"error": "pip is missing"})); sys.exit(0)
def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()
def altered(path, written, digest):
    # pip writes RECORD last: nothing of what it wrote is newer, and only what is newer is read.
    if path.stat().st_mtime_ns <= written or not digest.startswith("sha256="):
        return False
    found = hashlib.sha256(path.read_bytes()).digest()
    return "sha256=" + base64.urlsafe_b64encode(found).rstrip(b"=").decode() != digest
def whole(distribution, name):
    record = distribution.read_text("RECORD")
    if not record:
        return False
    if canonical(name) in base:
        return True
    written = (Path(str(distribution._path)) / "RECORD").stat().st_mtime_ns
    # Not distribution.files: from Python 3.12 on, that leaves out what is missing.
    for file, digest, size in csv.reader(record.splitlines()):
        if file.endswith(".pyc"):
            continue
        path = Path(str(distribution.locate_file(file)))
        try:
            found = path.stat().st_size
        except OSError:
            return False
        # Scripts lie outside, and carry the path of the environment, which changed when it was put in its place.
        if file.startswith("../"):
            continue
        if (size and int(size) != found) or altered(path, written, digest):
            return False
    return True
wanted = json.load(sys.stdin)
base = set(wanted["base"])
installed, damaged = {}, []
for distribution in metadata.distributions(path=[p for p in sys.path if p.startswith(sys.prefix)]):
    # Not distribution.metadata: what it does without the file is another thing on every Python.
    about = message_from_string(distribution.read_text("METADATA") or "")
    name = about.get("Name")
    try:
        sound = bool(name and about.get("Version")) and whole(distribution, name)
    except (ValueError, csv.Error):  # a malformed line of RECORD
        sound = False
    if not sound:
        damaged.append(str(distribution._path))
        continue
    installed[canonical(name)] = about["Version"]
missing, names = [], set()
for line in wanted["requirements"]:
    requirement = Requirement(line)
    if requirement.marker is not None and not requirement.marker.evaluate():
        continue
    name = canonical(requirement.name)
    names.add(name)
    if name not in installed or not requirement.specifier.contains(installed[name], prereleases=True):
        missing.append(f"{name}{requirement.specifier}")
extra = sorted(set(installed) - names - base)
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2], "installed": installed, "missing": sorted(missing),
    "damaged": sorted(damaged), "extra": extra,
}))
"""


class RuntimeSetupError(FleetError):
    """The environment cannot be made; the message names the step, its output and the way out."""


@dataclass(frozen=True)
class Sources:
    """Sources of distributions for pip."""

    find_links: Sequence[str] = ()
    index_url: str = ""
    no_index: bool = False

    def lines(self, *, hashed: bool) -> list[str]:
        """Lines of a requirements file with the sources: URLs may have passwords, and command lines are public.

        Plain http suffices if every wheel is checked by its hash.
        """
        options = ["--no-index"] if self.no_index else []
        if self.index_url and not self.no_index:
            options.append(f"--index-url {shlex.quote(self.index_url)}")
        options += [f"--find-links {shlex.quote(link)}" for link in self.find_links]
        plain = {
            urlsplit(url).netloc.rpartition("@")[2]
            for url in (self.index_url, *self.find_links)
            if url.startswith("http://")
        }
        return options + [f"--trusted-host {host}" for host in sorted(plain) if hashed]


@dataclass(frozen=True)
class Wanted:
    """The wanted environment: its interpreter, the hashed requirements, and those pinned by version only."""

    path: Path
    interpreter: Path
    requirements: str
    unhashed: Sequence[str] = ()
    sha256: Mapping[str, str] = field(default_factory=dict)
    sources: Sources = Sources()

    def pins(self) -> list[str]:
        """Every requirement without its hashes, as ``name==version ; marker``."""
        return requirement_lines(self.requirements) + list(self.unhashed)


@dataclass(frozen=True)
class EnvironmentState:
    """The present state. ``usable`` is false if the interpreter does not run, or is another one."""

    usable: bool
    reason: str = ""
    installed: Mapping[str, str] = field(default_factory=dict)
    missing: Sequence[str] = ()
    # Metadata directories of distributions with missing files.
    damaged: Sequence[str] = ()
    extra: Sequence[str] = ()

    @property
    def satisfied(self) -> bool:
        """Whether there is nothing to do."""
        return self.usable and not (self.missing or self.damaged or self.extra)


def requirement_lines(text: str) -> list[str]:
    """The requirements of a pip requirements file, without hashes, options and comments.

    Raises RuntimeSetupError for a line that does not pin one exact version.
    """
    lines = []
    for joined in re.sub(r"\\\r?\n", " ", text).splitlines():
        line = re.sub(r"(^|\s)#.*$", "", joined)
        line = re.sub(r"\s--hash[= ]\S+", "", line).strip()
        if not line or line.startswith("-"):
            continue
        if not re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]*(\[[^\]]*\])?\s*==\s*[^\s;,*]+\s*(;.*)?$", line):
            raise RuntimeSetupError(f"the requirements file has {line!r}: write name==version on every line")
        lines.append(line)
    return lines


def run(
    command: Sequence[str],
    *,
    stdin: str = "",
    seconds: int = _PIP_SECONDS,
    environment: Optional[Mapping[str, str]] = None,
) -> CommandResult:
    """Run COMMAND for at most SECONDS, without variables that redirect pip: see result_of."""
    own = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", **dict.fromkeys(_FOREIGN), **(environment or {})}
    return result_of(command, own, stdin=stdin, seconds=seconds)


def interpreter_version(interpreter: Path) -> str:
    """The ``major.minor`` of an interpreter that can make virtual environments, or "" if it cannot run."""
    script = "import ensurepip, ssl, sys, venv; print('%d.%d' % sys.version_info[:2])"
    status, output, _ignored = run([str(interpreter), "-IB", "-c", script], seconds=_PROBE_SECONDS)
    return output.strip() if status == 0 else ""


def read_state(wanted: Wanted) -> EnvironmentState:
    """Compare the environment on disk with the wanted one; reads only."""
    python = wanted.path / "bin" / "python"
    if not wanted.path.exists():
        return EnvironmentState(False, "it does not exist")
    question = json.dumps({"requirements": wanted.pins(), "base": sorted(BASE_DISTRIBUTIONS)})
    status, output, errors = run([str(python), "-IB", "-c", _PROBE], stdin=question, seconds=_PROBE_SECONDS)
    if status != 0:
        return EnvironmentState(False, f"its interpreter does not run ({last_line(errors) or f'exit status {status}'})")
    try:
        found: dict[str, Any] = json.loads(output)
    except ValueError:
        return EnvironmentState(False, "its interpreter gives no answer")
    if "error" in found:
        return EnvironmentState(False, str(found["error"]))
    # An environment's interpreter is a link to the one that made it: do not run the same file twice.
    if os.path.realpath(python) != os.path.realpath(wanted.interpreter):
        version = interpreter_version(wanted.interpreter)
        if version and version != found["version"]:
            return EnvironmentState(False, f"it has Python {found['version']} instead of {version}")
    return EnvironmentState(True, "", found["installed"], found["missing"], found["damaged"], found["extra"])


def last_line(text: str) -> str:
    """The last line of TEXT that is not empty."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def create(wanted: Wanted) -> None:
    """Make the environment beside its place, fill it, and swap it in; the former one is removed last.

    Raises RuntimeSetupError.
    """
    if not interpreter_version(wanted.interpreter):
        raise RuntimeSetupError(
            f"{wanted.interpreter} cannot create a virtual environment (modules venv, ensurepip and ssl are required): "
            "install it, or choose another python_runtime_provider"
        )
    wanted.path.parent.mkdir(parents=True, exist_ok=True)
    if not is_own(wanted.path.parent.stat()):
        raise RuntimeSetupError(
            f"{wanted.path.parent} is writable for another user, who could change what root installs there: chown "
            "root:root and chmod go-w it, or set python_runtime_directory to another place"
        )
    building = wanted.path.with_name(wanted.path.name + ".building")
    replaced = wanted.path.with_name(wanted.path.name + ".replaced")
    for leftover in (building, replaced):
        if leftover.is_dir():
            shutil.rmtree(leftover)
    status, output, errors = run([str(wanted.interpreter), "-I", "-m", "venv", str(building)], seconds=_PROBE_SECONDS)
    if status != 0:
        raise RuntimeSetupError(f"{wanted.interpreter} -m venv failed: {last_line(errors) or last_line(output)}")
    install(wanted, building)
    _move_scripts(building, wanted.path)
    if wanted.path.exists():
        wanted.path.rename(replaced)
    building.rename(wanted.path)
    if replaced.exists():
        shutil.rmtree(replaced)


def _move_scripts(building: Path, final: Path) -> None:
    """Scripts contain the path of their environment; write the final one into them."""
    for script in (building / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        content = script.read_bytes()
        moved = content.replace(os.fsencode(building), os.fsencode(final))
        if b"\0" not in content and moved != content:
            script.write_bytes(moved)


def install(wanted: Wanted, place: Path) -> None:
    """Install the requirements into the environment at PLACE: hashed ones first, then those pinned by version only.

    Raises RuntimeSetupError.
    """
    hashed_too = [f"{pin} --hash=sha256:{wanted.sha256[pin]}" for pin in wanted.unhashed if pin in wanted.sha256]
    plain = [pin for pin in wanted.unhashed if pin not in wanted.sha256]
    steps: list[tuple[str, list[str]]] = []
    if requirement_lines(wanted.requirements) or hashed_too:
        steps.append(("\n".join([wanted.requirements, *hashed_too]), ["--require-hashes"]))
    if plain:
        steps.append(("\n".join(plain), []))
    for text, options in steps:
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
            file.write("\n".join([*wanted.sources.lines(hashed=bool(options)), text, ""]))
            file.flush()
            _pip(place, ["install", "--no-deps", "--only-binary", ":all:", *options, "-r", file.name])


def _pip(place: Path, arguments: Sequence[str]) -> str:
    """Run pip in the environment at PLACE and return its output. Raises RuntimeSetupError with pip's words."""
    command = [str(place / "bin" / "python"), "-I", "-m", "pip", "--no-input", *arguments]
    status, output, errors = run(command)
    if status != 0:
        raise RuntimeSetupError(f"pip {arguments[0]} failed in {place}: {explain(errors or output)}")
    return output


def explain(output: str) -> str:
    """Reduce pip's output to its errors and their remedies."""
    errors = [
        line.strip() for line in output.splitlines() if line.lstrip().upper().startswith(("ERROR", "EXPECTED", "GOT"))
    ]
    text = " ".join(errors[:6]) or last_line(output) or "no output"
    text = re.sub(r"(?<=://)[^/\s@]+@", "***@", text)
    if "do not match the hashes" in output.lower() or "hashes are required" in output.lower():
        return f"{text} - a wheel differs from the pinned one: do not use that index or wheelhouse"
    return (
        f"{text} - set python_runtime_index_url, python_runtime_find_links or python_runtime_wheelhouse to a location "
        "that has it, or set python_runtime_proxy"
    )


def apply(wanted: Wanted, state: EnvironmentState) -> None:
    """Bring the environment from the state that was read to the wanted one. Raises RuntimeSetupError."""
    if not state.usable:
        create(wanted)
        return
    for metadata in state.damaged:
        # pip cannot replace a distribution without RECORD; without its metadata it counts as absent, and all its
        # files are installed again.
        shutil.rmtree(metadata, ignore_errors=True)
    if state.extra:
        _pip(wanted.path, ["uninstall", "--yes", *state.extra])
    if state.missing or state.damaged:
        install(wanted, wanted.path)


def free_bytes(path: Path) -> int:
    """Free bytes for PATH, at its nearest existing parent."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
