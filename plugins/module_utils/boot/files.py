"""Paths of a node's boot files, and how to read them: a test's directory may stand for the node's root."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.system.command import Run, run_as_is
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

DROP_IN = "etc/default/grub.d/60-xpu-fleet.cfg"
MENU = "boot/grub/grub.cfg"
BLOCK = "boot/grub/grubenv"
STATE = "var/lib/xpu-fleet/kernel"
#: The kernel that ran at the first change: the target of a rollback.
ORIGIN = f"{STATE}/origin.json"
#: The boot in which a trial was confirmed: until the next one, GRUB has not booted the kernel as its default.
CONFIRMED = f"{STATE}/confirmed"


class BootError(FleetError):
    """The request cannot be done; the message says why and what helps."""


class BootFiles:
    """A node whose files are below ``root``, and whose commands ``run`` starts."""

    def __init__(self, root: Path = Path("/"), run: Run = run_as_is) -> None:
        self.root = root
        self.run = run

    def text(self, path: str) -> str:
        """Return a file's text, "" if it does not exist."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""

    def link(self, path: str) -> str:
        """Return the target of a symbolic link, "" if it does not exist."""
        link = self.root / path
        return str(link.readlink()) if link.is_symlink() else ""

    def followed(self, path: str) -> Path:
        """Return the file at the end of symbolic links; absolute targets are below the root."""
        file = self.root / path
        for _turn in range(10):
            if not file.is_symlink():
                break
            target = file.readlink()
            file = self.root / str(target).lstrip("/") if target.is_absolute() else file.parent / target
        return file

    def boot_file(self, path: str) -> Path:
        """Return a menu's file in the running system: for GRUB, /boot may be a separate file system."""
        inside = self.root / "boot" / path.rsplit("/", 1)[-1]
        return inside if inside.exists() else self.root / path.lstrip("/")

    def shown(self, path: object) -> str:
        """Return a file's path on the node."""
        return "/" + os.path.relpath(str(path), self.root)

    def checked_run(self, command: list[str]) -> str:
        """Run a command and return its output. Raises BootError with the end of its output."""
        status, output, error = self.run(command)
        if status:
            lines = [line for line in f"{output}\n{error}".splitlines() if line.strip()]
            raise BootError(f"{' '.join(command[:3])} failed with status {status}: {' / '.join(lines[-10:])}")
        return output


def has_content(path: Path) -> bool:
    """Tell whether a file exists and is not empty."""
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False
