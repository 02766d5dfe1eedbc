"""The tests of the gateway with the HAProxy of every distribution (make test-gateway).

A distribution's package and its libraries are unpacked into the cache, and run in that folder as their root: nothing is
installed. A path of a program instead of a codename is tested as it is.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Optional

from rig import cache, host
from rig.host import DEBIAN_KEYRING, RigError, run
from rig.userland import DEBIAN

ROOT = Path(__file__).resolve().parents[2]
#: Ubuntu's archive; XPU_FLEET_UBUNTU_MIRROR names a nearer mirror.
UBUNTU = os.environ.get("XPU_FLEET_UBUNTU_MIRROR", "http://archive.ubuntu.com/ubuntu")
#: Of the package ubuntu-keyring, which Ubuntu itself has.
UBUNTU_KEYRING = Path("/usr/share/keyrings/ubuntu-archive-keyring.gpg")
#: Starts HAProxy with the folder beside it as root; the files of tests stay where they are.
START = """\
#!/bin/sh
exec unshare --mount sh -c 'for folder in /tmp /run; do mount --rbind "$folder" "$0$folder" || exit; done
exec chroot "$0" /usr/sbin/haproxy "$@"' \\
  "$(dirname "$(readlink -f "$0")")/root" "$@"
"""


class Archive(NamedTuple):
    """Where a distribution has its packages."""

    mirror: str
    keyring: Path
    suites: Sequence[str]


#: By codename: Ubuntu 22.04, Debian 12, Ubuntu 24.04, Debian 13.
ARCHIVES = {
    "jammy": Archive(UBUNTU, UBUNTU_KEYRING, ("jammy", "jammy-updates")),
    "bookworm": Archive(DEBIAN, DEBIAN_KEYRING, ("bookworm",)),
    "noble": Archive(UBUNTU, UBUNTU_KEYRING, ("noble", "noble-updates")),
    "trixie": Archive(DEBIAN, DEBIAN_KEYRING, ("trixie",)),
}


def program(name: str) -> Path:
    """Return the HAProxy of a codename, or of a path. Raises RigError."""
    if name in ARCHIVES:
        archive = ARCHIVES[name]
        recipe = {"version": 1, "mirror": archive.mirror, "suites": archive.suites, "start": START}
        return cache.artifact(f"haproxy-{name}", recipe, lambda target: _unpack(name, target)) / "haproxy"
    if not os.access(name, os.X_OK):
        raise RigError(f"{name} is no program, and none of {', '.join(ARCHIVES)}")
    return Path(name).absolute()


def _unpack(name: str, target: Path) -> None:
    archive, root = ARCHIVES[name], target / "root"
    if not archive.keyring.exists():
        raise RigError(
            f"{archive.keyring} is missing (package ubuntu-keyring): copy it from an Ubuntu, or name a program"
        )
    host.require_tools()
    command = ["mmdebstrap", "--mode=root", "--variant=extract", "--include=haproxy", f"--keyring={archive.keyring}"]
    command += ['--aptopt=Acquire::Languages "none"', archive.suites[0], str(root)]
    run([*command, *(f"deb {archive.mirror} {suite} main" for suite in archive.suites)])
    (root / "run").mkdir(exist_ok=True)
    for folder in ("lib", "lib64"):
        # The package that has these links is not among HAProxy's dependencies.
        if not (root / folder).exists():
            (root / folder).symlink_to(f"usr/{folder}")
    start = target / "haproxy"
    start.write_text(START)
    start.chmod(0o755)


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Return 0 if all tests passed with every version, 1 if some failed or a version is not to be had."""
    options = parser().parse_args(arguments)
    failed = False
    table = []
    for name in options.versions:
        try:
            host.require_root()
            path = program(name)
            version = run([str(path), "-v"]).split()[2]
        except RigError as error:
            result, version = f"not run: {error}", "unknown"
        else:
            environment = {**os.environ, "XPU_FLEET_HAPROXY": str(path)}
            command = [sys.executable, "-m", "pytest", "tests/gateway"]
            done = subprocess.run(command, env=environment, cwd=ROOT, check=False)
            result = "failed" if done.returncode else "passed"
        failed = failed or result != "passed"
        table.append(f"{name}: HAProxy {version} {result}")
    print(*table, sep="\n")
    return int(failed)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(prog="versions", description=__doc__)
    known = ", ".join(ARCHIVES)
    top.add_argument("versions", nargs="*", default=[*ARCHIVES], help=f"codenames ({known}; default: all) or programs")
    return top


if __name__ == "__main__":
    sys.exit(main())
