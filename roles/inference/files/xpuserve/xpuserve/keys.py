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

_KEY = re.compile(r"[!-~]{16,}")


class KeysError(Exception):
    """The file of keys cannot be used; the message names the file and the line, never a key."""


class Keys:
    """The keys that are accepted. Only their digests are kept."""

    def __init__(self, path: Path) -> None:
        """Read the file; raises KeysError."""
        self._path = path
        self._digests: list[bytes] = []
        self.reload()

    def reload(self) -> int:
        """Read the file again, and return how many keys it has; after a KeysError, the former keys stay."""
        self._digests = [_digest(key.encode()) for key in read(self._path)]
        return len(self._digests)

    def accept(self, key: str) -> bool:
        """Whether `key` is one of them. Equal-length digests of all keys are compared, whichever fits."""
        digest = _digest(key.encode())
        found = False
        for known in self._digests:
            found |= hmac.compare_digest(known, digest)
        return found


def read(path: Path) -> list[str]:
    """The keys in a file, one a line; empty lines and lines that begin with # do not count. Raises KeysError."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read()
    except OSError as error:
        raise KeysError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise KeysError(f"{path}: not UTF-8") from None
    if not stat.S_ISREG(mode) or mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise KeysError(f"{path}: mode {stat.S_IMODE(mode):04o} is too open: only its owner may write, others not read")
    keys = []
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if line and not line.startswith("#"):
            if not _KEY.fullmatch(line):
                raise KeysError(f"{path}: line {number} is no key: 16 or more visible ASCII characters without spaces")
            keys.append(line)
    if not keys:
        raise KeysError(f"{path}: it has no key")
    return keys


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
