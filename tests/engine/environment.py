"""Make the virtual environment of engine bigdl on the CPU, from the wheels that test hosts install.

``PYTHONPATH=molecule python3 environment.py DIRECTORY``. The pytest that runs this sees is put behind the engine's own
packages. A stamp written last says that the environment is complete.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rig import wheels

NAME, PYTHON = "bigdl-cpu", "3.11"


def main() -> int:
    """Return 0 with the environment complete; on failure 1, with the reason on standard error."""
    directory = Path(sys.argv[1])
    stamp = directory / ".complete"
    if stamp.is_file() and (directory / "bin/python").exists():
        return 0
    interpreter = shutil.which(f"python{PYTHON}")
    if interpreter is None:
        print(f"Engine bigdl needs python{PYTHON} in PATH.", file=sys.stderr)
        return 1
    print(f"Installing {NAME} into {directory}", file=sys.stderr)
    pip = [str(directory / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    house = wheels.house(NAME, PYTHON)
    for command in (
        [interpreter, "-m", "venv", "--clear", str(directory)],
        [*pip, "--no-index", "--find-links", str(house), "--require-hashes", "-r", str(requirements())],
    ):
        if subprocess.run(command, check=False).returncode != 0:
            print(f"This command failed: {' '.join(command)}", file=sys.stderr)
            return 1
    packages = directory / f"lib/python{PYTHON}/site-packages"
    (packages / "pytest.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")
    stamp.write_text("")
    return 0


def requirements() -> Path:
    """Return what a node installs."""
    return Path(wheels.REQUIREMENTS) / f"{NAME}.txt"


if __name__ == "__main__":
    sys.exit(main())
