"""Turn a directory with Python code into a zip that Python can run; equal files give equal bytes."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

# The oldest time of a zip entry: a fixed one keeps archives of equal trees equal.
_EPOCH = (1980, 1, 1, 0, 0, 0)
_SKIPPED_DIRECTORIES = frozenset({"__pycache__", "tests", ".git", ".mypy_cache", ".pytest_cache", ".ruff_cache"})
_SKIPPED_SUFFIXES = (".pyc", ".pyo", ".egg-info")


class TreeError(FleetError):
    """The source directory cannot become an application; the message says why."""


def tree_files(source: Path) -> dict[str, bytes]:
    """Read the files of the packages below SOURCE for the archive, by their name in it.

    Only Python packages (directories with an ``__init__.py``) and modules directly below SOURCE are taken:
    build settings and tests beside them stay where they are. Raises TreeError when there is no package.
    """
    if not source.is_dir():
        raise TreeError(f"{source} is not a directory on the controller")
    files: dict[str, bytes] = {}
    for path in sorted(source.rglob("*")):
        relative = path.relative_to(source)
        if not path.is_file() or path.suffix in _SKIPPED_SUFFIXES:
            continue
        if any(part in _SKIPPED_DIRECTORIES or part.endswith(".egg-info") for part in relative.parts[:-1]):
            continue
        top = relative.parts[0]
        inside_package = len(relative.parts) > 1 and (source / top / "__init__.py").is_file()
        if inside_package or (len(relative.parts) == 1 and path.suffix == ".py"):
            files[relative.as_posix()] = path.read_bytes()
    if not any(name.endswith("/__init__.py") for name in files):
        raise TreeError(f"{source} holds no Python package (a directory with an __init__.py)")
    return files


def build_archive(source: Path, package: str = "") -> bytes:
    """Zip the tree at SOURCE; with PACKAGE, ``python archive.zip`` runs that package as ``-m PACKAGE`` would.

    Entries are sorted, stored without compression (compressors differ between versions) and carry one fixed time.
    Raises TreeError when the tree or the package to run is not there.
    """
    files = tree_files(source)
    if package:
        if f"{package}/__main__.py" not in files:
            raise TreeError(f"{source} has no {package}/__main__.py")
        files["__main__.py"] = (
            f'import runpy\n\nrunpy.run_module("{package}", run_name="__main__", alter_sys=True)\n'.encode()
        )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def list_archive(archive: bytes) -> str:
    """One line "sha256 size name" for each file of a zip, for a diff; "" if it is no zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            entries = {name: opened.read(name) for name in opened.namelist()}
    except zipfile.BadZipFile:
        return ""
    return "".join(
        f"{hashlib.sha256(content).hexdigest()[:12]} {len(content):>8} {name}\n"
        for name, content in sorted(entries.items())
    )
