"""Writes files so that they are whole, and stay so when the power goes: the one place for it."""

from __future__ import annotations

import os
from pathlib import Path


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Put CONTENT at PATH, whole or not at all, and onto the disk before this returns.

    Its directory is made where it lacks; the owner of a file that was there stays.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # A hidden name, and no suffix that somebody reads: apt and GRUB read whole directories of settings.
    fresh = path.with_name(f".{path.name}.xpu-fleet")
    try:
        fresh.write_bytes(content)
        fresh.chmod(mode)
        if path.is_file():
            owner = path.stat()
            os.chown(fresh, owner.st_uid, owner.st_gid)
        put_in_place(fresh, path)
    finally:
        fresh.unlink(missing_ok=True)


def put_in_place(fresh: Path, path: Path) -> None:
    """Give a finished file the name of another one in the same directory, both on the disk before this returns."""
    flush(fresh)
    fresh.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Have the contents of a file, or the names in a directory, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
