"""Where a node's boot files are, and how they are read: the node's root may be a directory of a test."""

from __future__ import annotations

import os
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.system.command import Run, run_as_is
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

DROP_IN = "etc/default/grub.d/60-xpu-fleet.cfg"
MENU = "boot/grub/grub.cfg"
BLOCK = "boot/grub/grubenv"
STATE = "var/lib/xpu-fleet/kernel"
#: The kernel that ran when something was changed here for the first time: where a rollback goes.
ORIGIN = f"{STATE}/origin.json"
#: The boot in which a trial was confirmed: as long as it lasts, GRUB has not booted the kernel as its default.
CONFIRMED = f"{STATE}/confirmed"


class BootError(FleetError):
    """What was asked cannot be done; the message says why and what helps."""


class BootFiles:
    """A node whose files are below ``root``, and whose commands ``run`` starts."""

    def __init__(self, root: Path = Path("/"), run: Run = run_as_is) -> None:
        self.root = root
        self.run = run

    def text(self, path: str) -> str:
        """Return a file's text, "" where it is not there."""
        try:
            return (self.root / path).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""

    def link(self, path: str) -> str:
        """Return what a symbolic link points to, "" where there is none."""
        link = self.root / path
        return str(link.readlink()) if link.is_symlink() else ""

    def followed(self, path: str) -> Path:
        """Return the file at the end of symbolic links, whose absolute targets are below the root."""
        file = self.root / path
        for _turn in range(10):
            if not file.is_symlink():
                break
            target = file.readlink()
            file = self.root / str(target).lstrip("/") if target.is_absolute() else file.parent / target
        return file

    def boot_file(self, path: str) -> Path:
        """Return where a file of the menu is in the running system: GRUB may see /boot as a file system of its own."""
        inside = self.root / "boot" / path.rsplit("/", 1)[-1]
        return inside if inside.exists() else self.root / path.lstrip("/")

    def shown(self, path: object) -> str:
        """Return the path of a file as it is on the node."""
        return "/" + os.path.relpath(str(path), self.root)

    def checked_run(self, command: list[str]) -> str:
        """Run a command and return its output; raises BootError with the end of what it said."""
        status, output, error = self.run(command)
        if status:
            lines = [line for line in f"{output}\n{error}".splitlines() if line.strip()]
            raise BootError(f"{' '.join(command[:3])} failed with status {status}: {' / '.join(lines[-10:])}")
        return output


def has_content(path: Path) -> bool:
    """Tell whether a file is there and not empty."""
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False
