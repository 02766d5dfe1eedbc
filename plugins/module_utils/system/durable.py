"""Writes files so that they are whole, and stay so when the power goes: the one place for it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

_EXT4_CHECKPOINT = 0x4004662B  # EXT4_IOC_CHECKPOINT, _IOW('f', 43, __u32)


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


def write_back(directory: Path) -> None:
    """Write a file system out to where GRUB reads it.

    GRUB does not know journals: a renamed file is at its place for it only after the journal was written back. That is
    asked of ext4, whose kernel may be too old to offer it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise OSError(f"{directory} cannot be flushed to the disk: {os.strerror(ctypes.get_errno())}")
        with suppress(OSError):
            fcntl.ioctl(descriptor, _EXT4_CHECKPOINT, struct.pack("I", 0))
    finally:
        os.close(descriptor)
