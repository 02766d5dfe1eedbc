"""Writes files for modules."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any


def write_atomically(module: Any, path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` for an AnsibleModule, whole or not at all; its directory is made where it lacks.

    What the caller does next may rely on it: it is on the disk, and not only in a cache that a power cut takes along.
    """
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=module.tmpdir, delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    module.atomic_move(file.name, str(path))
    # The move is a copy where the two are on different file systems.
    flush(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """Have the contents of a file, or the names in a directory, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
