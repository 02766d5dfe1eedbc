"""API keys: read from a file, compared in constant time, read again when the process is told to.

Only Python's own library is used: `xpuserve chat` reads keys too.
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
    """A key, whose it is, and how much of the service it gets beside another."""

    key: str
    name: str
    weight: int = 1


class KeysError(Exception):
    """The file of keys cannot be used; the message names the file and the line, never a key."""


class Keys:
    """The keys that are accepted. Only their digests are kept."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises KeysError."""
        self._path = path
        self._known: list[tuple[bytes, Key]] = []
        self.reload()

    def reload(self) -> int:
        """Read the file again, and return how many keys it has; after a KeysError, the former keys stay."""
        self._known = [(_digest(key.key.encode()), key._replace(key="")) for key in read(self._path)]
        return len(self._known)

    def accept(self, key: str) -> Optional[Key]:
        """Whose `key` is, without itself; None for nobody. Equal-length digests of all are compared, whichever fits."""
        digest = _digest(key.encode())
        found = None
        for known, whose in self._known:
            if hmac.compare_digest(known, digest):
                found = whose
        return found

    @property
    def names(self) -> frozenset[str]:
        """Whose keys there are."""
        return frozenset(key.name for _name, key in self._known)


def read(path: Path) -> list[Key]:
    """The keys in a file, one a line: `KEY`, `NAME KEY` or `NAME:WEIGHT KEY`; several may have one name.

    Those without a name are called by their place in the file. Empty lines and lines that begin with # do not count.
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
