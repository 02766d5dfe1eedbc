"""Writes files for modules."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any


def write_atomically(module: Any, path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` for an AnsibleModule, whole or not at all; its directory is made where it lacks."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=module.tmpdir, delete=False) as file:
        file.write(content)
    module.atomic_move(file.name, str(path))
