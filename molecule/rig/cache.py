"""The rig's cache of built artifacts: named by a hash of their inputs, built aside and then renamed."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from rig.host import RigError, say, unmount

#: Where artifacts, keys and running fleets live; XPU_FLEET_CACHE moves it.
ROOT = Path(os.environ.get("XPU_FLEET_CACHE") or Path.home() / ".cache" / "xpu-fleet")
ARTIFACTS = ROOT / "artifacts"
KEYS = ROOT / "keys"
RUN = ROOT / "run"
#: Glob pattern of ``digest``'s results.
KEY = "[0-9a-f]" * 16


def digest(recipe: Any) -> str:
    """Return a short hash of any JSON-like data."""
    text = json.dumps(recipe, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def source_of(*modules: ModuleType) -> str:
    """Return a hash of modules' source text, for artifacts whose recipe is code."""
    return digest([inspect.getsource(module) for module in modules])


@contextlib.contextmanager
def lock(name: str) -> Iterator[None]:
    """Hold the lock of that name against other runs of the rig; says so if it has to wait."""
    folder = ROOT / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / name).open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run that holds lock {name}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def place(name: str, recipe: Any) -> Path:
    """Return the folder of an artifact, which may be missing."""
    return ARTIFACTS / f"{name}-{digest(recipe)}"


def artifact(name: str, recipe: Any, build: Callable[[Path], None]) -> Path:
    """Return the folder that ``build`` fills, built now or taken from the cache.

    ``recipe`` has every input of the content. A build that fails leaves nothing under the final name.
    """
    path = place(name, recipe)
    if path.is_dir():
        return path
    with lock(f"artifact-{name}"):
        if path.is_dir():
            return path
        say(f"{name}: building it (cached in {ARTIFACTS})")
        started = time.monotonic()
        for leftover in ARTIFACTS.glob(f".{name}-{KEY}.*"):
            unmount(leftover)
            remove(leftover)
        partial = ARTIFACTS / f".{path.name}.partial"
        partial.mkdir(parents=True)
        build(partial)
        partial.rename(path)
        say(f"{name}: done in {time.monotonic() - started:.1f} s")
        prune(name, path)
    return path


def in_use() -> set[Path]:
    """Return the artifacts that a fleet, running or stopped by a crash, still uses."""
    used: set[Path] = set()
    for state in RUN.glob("*/state.json"):
        with contextlib.suppress(OSError, ValueError):
            used.update(Path(entry) for entry in json.loads(state.read_text())["artifacts"])
    return used


def prune(name: str, keep: Path) -> None:
    """Remove the artifacts of that name, except ``keep`` and those in use."""
    keepers = in_use() | {keep}
    for old in ARTIFACTS.glob(f"{name}-{KEY}"):
        if old not in keepers:
            remove(old)


def remove(path: Path) -> None:
    """Delete a folder of the cache; refuses paths outside it, and mounted ones."""
    if not path.exists():
        return
    if ROOT not in path.parents:
        raise RigError(f"{path} is not in the cache {ROOT}: not deleted")
    mounts = Path("/proc/self/mounts").read_text().splitlines()
    if any((line.split()[1] + "/").startswith(f"{path}/") for line in mounts):
        raise RigError(f"something is still mounted under {path}: not deleted")
    shutil.rmtree(path)
