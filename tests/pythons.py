"""Which Pythons this machine has, for tests that have to hold on more than one."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

#: The oldest that nodes may have (plugins/module_utils/system/python_version.py).
OLDEST = (3, 9)
#: Where Pythons are that PATH does not name: the system's, those of pyenv, uv, and builds of one's own.
PLACES = ("/usr/bin", "/usr/local/bin", "/opt/*/bin", "~/.pyenv/versions/*/bin", "~/.local/share/uv/python/*/bin")
_ASK = "import ensurepip, ssl, sys, venv; print(*sys.version_info[:3], sys.executable)"


@functools.cache
def found() -> dict[tuple[int, int], Path]:
    """Return each Python that can make virtual environments, by its minor version; of several, the newest."""
    folders = [Path(folder) for folder in os.environ["PATH"].split(os.pathsep) if folder]
    for place in PLACES:
        absolute = Path(place).expanduser()
        folders += sorted(Path("/").glob(str(absolute.relative_to("/"))))
    files = {path.resolve() for folder in folders for path in folder.glob("python3.[0-9]*") if _is_python(path)}
    versions = sorted(answer for file in files if (answer := _version(file)))
    return {(version[0], version[1]): path for version, path in versions}


def _is_python(path: Path) -> bool:
    return path.name.removeprefix("python3.").isdecimal() and os.access(path, os.X_OK)


def _version(python: Path) -> tuple[tuple[int, int, int], Path] | None:
    asked = subprocess.run([str(python), "-IB", "-c", _ASK], capture_output=True, text=True, check=False)
    if asked.returncode:  # a shim of a version that is not chosen, or one without its parts
        return None
    major, minor, micro, _executable = asked.stdout.split(maxsplit=3)
    return (int(major), int(minor), int(micro)), python


def of_nodes() -> dict[tuple[int, int], Path]:
    """Return those that nodes may have."""
    return {version: path for version, path in found().items() if version >= OLDEST}
