"""What the layers of an audit read of a node: each thing once; nothing is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpus import Gpu, all_gpus
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (
    STATUS,
    Package,
    packages_in,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import Run, run_as_is

_UNIT_PROPERTIES = (
    "Id,LoadState,ActiveState,SubState,UnitFileState,MainPID,NeedDaemonReload,ExecMainStartTimestampMonotonic"
)


@dataclass(frozen=True)
class User:
    """An account; ``groups`` are the names of all its groups."""

    uid: int
    gid: int
    home: str
    shell: str
    groups: frozenset[str]


class AuditedNode:
    """A node whose files are below ``root``; ``expected`` has the expectation of each layer."""

    def __init__(self, root: Path, expected: Mapping[str, Any], run: Run = run_as_is, api_key: str = "") -> None:
        """Take a node without reading anything yet."""
        self.root = root
        self.expected = expected
        self.run = run
        self.api_key = api_key

    def path(self, absolute: str) -> Path:
        """Return where a path of the node is."""
        return self.root / absolute.lstrip("/")

    def exists(self, absolute: str, follow: bool = True) -> bool:
        """Tell whether a file exists. Raises PermissionError: Path.exists of 3.14 returns False for hidden files."""
        path = self.path(absolute)
        try:
            (path.stat if follow else path.lstat)()
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def text(self, absolute: str) -> Optional[str]:
        """Return the text of a file, None if it does not exist. Raises PermissionError."""
        content = self.content(absolute)
        return None if content is None else content.decode("utf-8", "replace")

    def content(self, absolute: str) -> Optional[bytes]:
        """Return the content of a file, None if it does not exist. Raises PermissionError."""
        try:
            return self.path(absolute).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def sha256(self, absolute: str) -> str:
        """Return the checksum of a file, "" if it does not exist. Raises PermissionError."""
        content = self.content(absolute)
        return "" if content is None else hashlib.sha256(content).hexdigest()

    def first_line(self, absolute: str) -> str:
        """Return the first line of a file, "" if it does not exist."""
        return (self.text(absolute) or "").partition("\n")[0].strip()

    @cached_property
    def running_kernel(self) -> str:
        """The release of the running kernel."""
        return self.first_line("/proc/sys/kernel/osrelease")

    @cached_property
    def gpus(self) -> list[Gpu]:
        """The GPUs that the roles use."""
        return [gpu for gpu in all_gpus(self.root) if gpu.free]

    @cached_property
    def packages(self) -> dict[str, Package]:
        """Every package that dpkg has, wholly or in part, by apt's name."""
        status = self.text(f"/{STATUS}")
        if status is None:
            raise FileNotFoundError(f"there is no /{STATUS}")
        return packages_in(status)

    @cached_property
    def groups(self) -> dict[str, tuple[int, frozenset[str]]]:
        """Every group of /etc/group: its number and its members."""
        rows = [line.split(":") for line in (self.text("/etc/group") or "").splitlines()]
        return {row[0]: (int(row[2]), frozenset(filter(None, row[3].split(",")))) for row in rows if len(row) > 3}

    @cached_property
    def users(self) -> dict[str, User]:
        """Every account of /etc/passwd."""
        rows = [line.split(":") for line in (self.text("/etc/passwd") or "").splitlines()]
        return {row[0]: self._user(row) for row in rows if len(row) > 6}

    def _user(self, row: Sequence[str]) -> User:
        gid = int(row[3])
        groups = {name for name, (number, members) in self.groups.items() if number == gid or row[0] in members}
        return User(int(row[2]), gid, row[5], row[6], frozenset(groups))

    def units(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return systemd's data about units, by name; read once. Raises OSError if systemd does not answer."""
        lacking = [name for name in names if name not in self._units]
        if lacking:
            status, output, error = self.run(["systemctl", "show", f"--property={_UNIT_PROPERTIES}", *lacking])
            if status:
                raise OSError(f"systemctl show failed: {(error or output).strip()}")
            blocks = [block for block in output.strip().split("\n\n") if block.strip()]
            for name, block in zip(lacking, blocks):
                self._units[name] = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        return {name: self._units[name] for name in names}

    @cached_property
    def _units(self) -> dict[str, dict[str, str]]:
        return {}

    @property
    def by_root(self) -> bool:
        """Whether the audit runs as root."""
        return os.geteuid() == 0
