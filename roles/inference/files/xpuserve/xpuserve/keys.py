"""API keys: read from a file, compared in constant time, read again on request.

It needs only Python's own library: `xpuserve chat` reads keys too.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import stat
from pathlib import Path
from typing import NamedTuple, Optional

_KEY = re.compile(r"[!-~]{16,}")
_NAME = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})(?::([1-9][0-9]{0,2}))?")


class Key(NamedTuple):
    """A key, its owner, and its weight."""

    key: str
    name: str
    weight: int = 1


class KeysError(Exception):
    """The file of keys cannot be used; the message names the file and the line, never a key."""


class Keys:
    """The accepted keys. Only their digests are kept."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises KeysError."""
        self._path = path
        self._known: list[tuple[bytes, Key]] = []
        self.reload()

    def reload(self) -> int:
        """Read the file again, and return the number of keys; after a KeysError, the former keys stay."""
        self._known = [(_digest(key.key.encode()), key._replace(key="")) for key in read(self._path)]
        return len(self._known)

    def accept(self, key: str) -> Optional[Key]:
        """The owner of `key`; None if it is unknown. It compares the digests of all keys, whichever matches."""
        digest = _digest(key.encode())
        found = None
        for known, whose in self._known:
            if hmac.compare_digest(known, digest):
                found = whose
        return found

    @property
    def names(self) -> frozenset[str]:
        """The owners of all keys."""
        return frozenset(key.name for _name, key in self._known)


def read(path: Path) -> list[Key]:
    """The keys in a file, one a line: `KEY`, `NAME KEY` or `NAME:WEIGHT KEY`; several may have one name.

    A key without a name is called by its position. Empty lines and lines that begin with # are ignored.
    Raises KeysError.
    """
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeysError(f"{path}: not UTF-8") from None
    if not stat.S_ISREG(mode) or mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise KeysError(f"{path}: mode {stat.S_IMODE(mode):04o} is too open: run chmod 600")
    keys: list[Key] = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line and not line.startswith("#"):
            name, _rest, key = line.rpartition(" ")
            named = _NAME.fullmatch(name.strip() or f"key-{len(keys) + 1}")
            if not _KEY.fullmatch(key) or not named:
                raise KeysError(
                    f"{path}: line {number} is not a key: write 16 or more visible ASCII characters without spaces, "
                    "after NAME or NAME:WEIGHT if it has a name"
                )
            keys.append(Key(key, named[1], int(named[2] or 1)))
    if not keys:
        raise KeysError(f"{path}: the file has no key")
    return keys


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
