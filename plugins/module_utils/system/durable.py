"""Writes files atomically and durably: only here."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from contextlib import suppress
from pathlib import Path

_EXT4_CHECKPOINT = 0x4004662B  # EXT4_IOC_CHECKPOINT, _IOW('f', 43, __u32)


def write_durably(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write CONTENT to PATH, whole or not at all, and to the disk before this returns.

    It makes a missing directory, and keeps the owner of an existing file.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    # A hidden name without a known suffix: apt and GRUB read whole directories of settings.
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
    """Rename a finished file over another one in the same directory, and sync both before this returns."""
    flush(fresh)
    fresh.replace(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Sync the content of a file, or the names in a directory, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_back(directory: Path) -> None:
    """Write a file system's journal back for GRUB.

    GRUB does not read journals: it sees a renamed file only after the journal was written back. ext4 can do
    that on request, if the kernel is new enough.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise OSError(f"{directory} cannot be flushed to the disk: {os.strerror(ctypes.get_errno())}")
        with suppress(OSError):
            fcntl.ioctl(descriptor, _EXT4_CHECKPOINT, struct.pack("I", 0))
    finally:
        os.close(descriptor)
