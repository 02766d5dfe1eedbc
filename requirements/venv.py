"""Make the virtual environment of a locked requirements file, if it is not there yet.

``python3 venv.py REQUIREMENTS DIRECTORY [OLDEST]``; OLDEST is the oldest Python that will do (3.11). A stamp written
last says which Python and which requirements the directory is for, so an interrupted install or another Python is
noticed and done again. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

OLDEST = (3, 11)


def main() -> int:
    """Return 0 with the environment complete; on failure 1, with the reason on standard error."""
    requirements, directory = Path(sys.argv[1]), Path(sys.argv[2])
    oldest = tuple(map(int, sys.argv[3].split("."))) if len(sys.argv) > 3 else OLDEST
    if sys.version_info < oldest:
        found = ".".join(map(str, sys.version_info[:3]))
        print(f"python3 is {found}; Python {'.'.join(map(str, oldest))} or newer is needed in PATH.", file=sys.stderr)
        return 1
    directory.parent.mkdir(parents=True, exist_ok=True)
    with directory.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return 0 if is_complete(requirements, directory) else make(requirements, directory)


def is_complete(requirements: Path, directory: Path) -> bool:
    """Tell whether an earlier run finished this environment, with this Python and these requirements."""
    stamp = directory / ".complete"
    return stamp.is_file() and stamp.read_text() == identity(requirements) and (directory / "bin/python").exists()


def identity(requirements: Path) -> str:
    """Return what the stamp of a finished environment holds."""
    python = sys.version.split()[0]
    return f"{python}\n{sys.base_prefix}\n{hashlib.sha256(requirements.read_bytes()).hexdigest()}\n"


def make(requirements: Path, directory: Path) -> int:
    """Make the environment in its place (virtual environments can't be moved) and stamp it last."""
    if importlib.util.find_spec("ensurepip") is None and not install_venv_package():
        return 1
    print(f"Installing {requirements.name} into {directory}", file=sys.stderr)
    (directory / ".complete").unlink(missing_ok=True)
    # A lock names everything; pip would look for what a package asks for with extras, whose names locks leave out.
    pip = [str(directory / "bin/python"), "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(directory)],
        [*pip, "--require-hashes", "--requirement", str(requirements)],
    ):
        status = subprocess.run(command, check=False).returncode
        if status != 0:
            print(f"This command failed with status {status}: {' '.join(command)}", file=sys.stderr)
            return 1
    (directory / ".complete").write_text(identity(requirements))
    return 0


def install_venv_package() -> bool:
    """Install what Debian and Ubuntu leave out of python3, after naming it; tell whether it is there now."""
    package = f"python3.{sys.version_info.minor}-venv"
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        print(f"This python3 can't make virtual environments; install the package {package}", file=sys.stderr)
        return False
    print(f"This python3 can't make virtual environments; installing the package {package}", file=sys.stderr)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run([apt, "update", "-qq"], env=quiet, check=False)
    install = [apt, "install", "-y", "-qq", "-o", "Dpkg::Use-Pty=0", "--no-install-recommends", package]
    status = subprocess.run(install, env=quiet, stdout=subprocess.DEVNULL, check=False).returncode
    importlib.invalidate_caches()
    if status != 0 or importlib.util.find_spec("ensurepip") is None:
        print(f"Installing {package} did not help {sys.executable}; put another python3 first in PATH", file=sys.stderr)
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
