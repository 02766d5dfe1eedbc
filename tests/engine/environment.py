"""Make the virtual environment of an engine on the CPU, from the wheels that test hosts install.

``PYTHONPATH=molecule python3 environment.py NAME`` prints its directory; NAME is that of a file in
roles/stack/vars/requirements, or peer-transformers. The packages of the calling pytest come after the environment's
own.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rig import cache, wheels
from rig.host import RigError, run, say

#: Only this environment has PyTorch's CPU build among its wheels.
TORCH = "bigdl-cpu"
#: Current transformers, which no stack installs: engine torch runs on it.
TRANSFORMERS = Path(__file__).resolve().parents[2] / "requirements/peer-transformers.txt"


def main() -> int:
    """Return 0 with the environment complete; on failure 1, with the reason on standard error."""
    try:
        directory = transformers() if sys.argv[1] == TRANSFORMERS.stem else engine(sys.argv[1])
    except RigError as error:
        print(error, file=sys.stderr)
        return 1
    for packages in directory.glob("lib/python*/site-packages"):
        (packages / "pytest.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    print(directory)
    return 0


def engine(name: str) -> Path:
    """Return a node's environment for an engine; makes a missing one."""
    options = ["--no-index", "--find-links", str(house(name))]
    return made(Path(wheels.REQUIREMENTS) / f"{name}.txt", python(name), options)


def transformers() -> Path:
    """Return the environment of current transformers, with PyTorch's CPU build; makes a missing one."""
    return made(TRANSFORMERS, python(TORCH), ["--find-links", str(house(TORCH))])


def house(name: str) -> Path:
    """Return the folder with an engine's wheels."""
    return wheels.house(name, python(name))


def python(name: str) -> str:
    """Return the stacks' Python version for an engine; if they leave it open, this Python's."""
    stacks = [stack["python"]["environments"] for stack in wheels.stack_data().values()]
    named = {environments[name]["version"] for environments in stacks if name in environments}
    return max(named) or ".".join(map(str, sys.version_info[:2]))


def made(requirements: Path, version: str, options: Sequence[str], also: Sequence[str] = ()) -> Path:
    """Return the environment of a requirements file, installed with these options of pip, and with wheels of our own.

    A stamp written last says that it is complete.
    """
    key = hashlib.sha256(requirements.read_bytes()).hexdigest()[:16]
    directory = cache.ROOT / "venv" / f"{requirements.stem}-{key}"
    stamp = directory / ".complete"
    with cache.lock(f"venv-{requirements.stem}"):
        if stamp.is_file() and (directory / "bin/python").exists():
            return directory
        interpreter = shutil.which(f"python{version}")
        if interpreter is None:
            raise RigError(f"{requirements.name} is for Python {version}: python{version} is not in PATH")
        say(f"installing {requirements.name} into {directory}")
        pip = [str(directory / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
        run([interpreter, "-m", "venv", "--clear", str(directory)])
        run([*pip, *options, "--require-hashes", "-r", str(requirements)])
        if also:
            run([*pip, *also])
        stamp.write_text("")
    return directory


if __name__ == "__main__":
    sys.exit(main())
