"""The machine that the rig runs on: its tools, commands, and progress messages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Optional

#: Command -> Debian or Ubuntu package with it.
TOOLS = {
    "apt-ftparchive": "apt-utils",
    "dpkg-deb": "dpkg",
    "gpg": "gnupg",
    "ip": "iproute2",
    "mmdebstrap": "mmdebstrap",
    "mount": "mount",
    "nft": "nftables",
    "ssh-keygen": "openssh-client",
    "systemd-nspawn": "systemd-container",
}
#: Additional commands for fleets with virtual machines.
MACHINE_TOOLS = {
    "mke2fs": "e2fsprogs",
    "nbdkit": "nbdkit",
    "qemu-img": "qemu-utils",
    "qemu-system-x86_64": "qemu-system-x86",
}
DEBIAN_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

_started = time.monotonic()


class RigError(Exception):
    """An error for the rig's user; the message says what is wrong and what to do."""


def say(text: str) -> None:
    """Print one progress line with the seconds since the start."""
    print(f"[rig {time.monotonic() - _started:6.1f}s] {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str],
    *,
    env: Optional[Mapping[str, str]] = None,
    stdin: Optional[str] = None,
    check: bool = True,
) -> str:
    """Run a command to its end and return its standard output.

    ``env`` is added to the environment. Raises RigError with the command and its last output if it fails.
    """
    result = subprocess.run(
        list(command),
        env={**os.environ, **(env or {})},
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        check=False,
    )
    if check and result.returncode != 0:
        output = "\n".join((result.stdout + result.stderr).splitlines()[-25:])
        raise RigError(f"command failed with status {result.returncode}: {' '.join(command)}\n{output}")
    return result.stdout


def missing_packages(machines: bool = False) -> list[str]:
    """Return the Debian packages that the rig needs and this machine lacks, including those for virtual machines."""
    tools = {**TOOLS, **MACHINE_TOOLS} if machines else TOOLS
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
    missing = {package for tool, package in tools.items() if shutil.which(tool, path=path) is None}
    if not DEBIAN_KEYRING.exists():
        missing.add("debian-archive-keyring")
    return sorted(missing)


def require_root() -> None:
    """Raise RigError if the rig may not make containers."""
    if os.geteuid() != 0:
        raise RigError("test hosts are containers with their own network: run this as root (sudo)")


def install(packages: Iterable[str]) -> None:
    """Install packages on this machine with apt, after naming them."""
    names = sorted(packages)
    if not names:
        return
    say(f"installing on this machine with apt: {' '.join(names)}")
    if shutil.which("apt-get") is None:
        raise RigError(f"this machine has no apt-get: install the tools of these Debian packages: {' '.join(names)}")
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-q"], env=quiet)
    run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *names], env=quiet)


def require_tools(machines: bool = False) -> None:
    """Raise RigError that names this machine's missing packages, if any."""
    missing = missing_packages(machines)
    if missing:
        option = " --machines" if machines else ""
        raise RigError(
            f"this machine lacks packages for test hosts: {' '.join(missing)}\n"
            f"install them with: python3 -m rig prepare{option} (it installs only these)"
        )


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Write a text file and its missing parent folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def unmount(path: Path) -> None:
    """Unmount everything at and below a path."""
    mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for point in reversed([point for point in mounted if point == str(path) or point.startswith(f"{path}/")]):
        run(["umount", point])
