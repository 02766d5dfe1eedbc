"""Rollback records: a node's packages and files before this collection changed them.

One directory holds them: a file for each record of packages, and one file for the records of files.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import known_packages
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import run
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import flush, write_durably
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

DIRECTORY = "/var/lib/xpu-fleet/found"
#: First words of this collection's files: a file that begins so is no original.
OWN_HEADER = b"# Managed by Ansible (xpu.fleet)"
_FILES = "files.json"


class RecordError(FleetError):
    """The node's state, or a rollback record, cannot be read; the message says why."""


@dataclass(frozen=True)
class PackageState:
    """One package: its version, "" if not installed, and its marks."""

    version: str = ""
    held: bool = False
    manual: bool = False
    #: Removed, but its settings remain.
    settings: bool = False
    #: Installed, removed or changed because of another package.
    along: bool = False

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> PackageState:
        """Read a package from a record."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})

    def data(self) -> dict[str, Any]:
        """Return the record's data; the last two fields only if set."""
        always = {"version": self.version, "held": self.held, "manual": self.manual}
        return {**always, **{name: True for name in ("settings", "along") if getattr(self, name)}}

    def __str__(self) -> str:
        if not self.version:
            return "removed, settings kept" if self.settings else "not installed"
        return " ".join([self.version, "manual" if self.manual else "auto", *(["held"] if self.held else [])])


@dataclass
class Record:
    """One rollback record of packages: their states before the first change."""

    packages: dict[str, PackageState] = field(default_factory=dict)
    #: All installed packages when a transaction began; None outside of one.
    before: dict[str, PackageState] | None = None

    def settle(self, now: Mapping[str, PackageState], *, cut_off: bool = False) -> list[str]:
        """Add packages that the transaction changed beside its own, and close it; return their names.

        A person may have changed packages since one was ``cut_off``: it only adds automatically installed ones.
        """
        before, self.before = self.before or {}, None
        moved = [
            name
            for name in sorted({*before, *now} - set(self.packages))
            if before.get(name, PackageState()).version != now.get(name, PackageState()).version
            and not (cut_off and (name not in now or now[name].manual or before.get(name, PackageState()).version))
        ]
        for name in moved:
            was = before.get(name, PackageState())
            # The mark of such a package tells later whether a person has taken it over.
            manual = was.manual if was.version else now[name].manual
            self.packages[name] = PackageState(was.version, was.held, manual, was.settings, along=True)
        return moved


def read_record(directory: Path, name: str) -> Record | None:
    """Return the record of this name, None if it does not exist. Raises RecordError."""
    path = record_path(directory, name)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        packages = {name: PackageState.of(state) for name, state in data["packages"].items()}
        before = data.get("before")
        return Record(
            packages, None if before is None else {name: PackageState.of(state) for name, state in before.items()}
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path}, a rollback record, cannot be read: {error}") from error


def write_record(directory: Path, name: str, record: Record) -> None:
    """Write the record of this name."""
    data: dict[str, Any] = {"packages": {package: state.data() for package, state in sorted(record.packages.items())}}
    if record.before is not None:
        data["before"] = {package: state.data() for package, state in sorted(record.before.items())}
    _write(record_path(directory, name), data)


def record_path(directory: Path, name: str) -> Path:
    """Return the path of the record of this name. Raises RecordError for an invalid name."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]*", name) or f"{name}.json" == _FILES:
        raise RecordError(
            f"'{name}' cannot name a rollback record: use lowercase letters, digits, - and _, and not 'files'."
        )
    return directory / f"{name}.json"


def installed() -> dict[str, PackageState]:
    """Return every package of which dpkg has files or settings, by apt's name. Raises CommandError."""
    manual = set(run(["apt-mark", "showmanual"]).split())
    return {
        name: PackageState(package.version, package.held, name in manual)
        if package.present
        else PackageState(settings=True)
        for name, package in known_packages().items()
    }


def remember_file(path: Path, record: str, directory: Path = Path(DIRECTORY)) -> None:
    """Save a file in a record before a change; only the first time counts."""
    files = read_files(directory)
    if str(path) in files.get(record, {}):
        return
    kept = ""
    if path.is_file() and not path.read_bytes().startswith(OWN_HEADER):
        copies = directory / "files"
        copies.mkdir(mode=0o700, parents=True, exist_ok=True)  # a sources file may hold a user and password
        directory.chmod(0o755)
        copy = copies / path.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)
        os.chown(copy, path.stat().st_uid, path.stat().st_gid)
        flush(copy)
        flush(copy.parent)
        kept = str(copy)
    files.setdefault(record, {})[str(path)] = kept
    write_files(files, directory)


def read_files(directory: Path = Path(DIRECTORY)) -> dict[str, dict[str, str]]:
    """Return, by record, the changed files with the path of the copy of their former content, "" for new files."""
    path = directory / _FILES
    try:
        files: dict[str, dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RecordError(f"{path}, a rollback record, cannot be read: {error}") from error
    return files


def write_files(files: Mapping[str, Mapping[str, str]], directory: Path = Path(DIRECTORY)) -> None:
    """Write the record of files, or remove it if it is empty."""
    rest = {record: paths for record, paths in files.items() if paths}
    if rest:
        _write(directory / _FILES, rest)
    else:
        (directory / _FILES).unlink(missing_ok=True)


def remove_empty(paths: Iterable[Path], top: Path) -> None:
    """Remove empty directories above paths, up to ``top``, which stays."""
    for path in paths:
        for parent in path.parents:
            if top not in parent.parents:
                break
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _write(path: Path, data: Any) -> None:
    write_durably(path, (json.dumps(data, indent=1, sort_keys=True) + "\n").encode())
