"""Real Debian packages for nodes, with all their dependencies, in a repository that nodes can reach."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from rig import cache, repository
from rig.host import RigError, run, say, write
from rig.userland import DEBIAN, base
from rig.wheels import stack_data

#: Packages of the distribution that roles, DKMS and people install. Names missing in a suite are omitted and reported.
COMMON = [
    "acl", "curl", "gawk", "dkms", "gcc", "make", "libc6-dev", "hwinfo", "clinfo", "ocl-icd-libopencl1",
    "va-driver-all", "vainfo", "python3-venv", "python3-pip", "python3-debian", "unattended-upgrades", "udev",
    "haproxy", "pciutils", "libgomp1", "libnuma1", "xz-utils", "bzip2", "unzip", "lsb-release",
]  # fmt: skip
PER_SUITE = {
    "bookworm": ["libtcmalloc-minimal4", "linux-headers-amd64"],
    "trixie": ["libtcmalloc-minimal4t64", "libze1"],
}


def packages_of(suite: str) -> list[str]:
    """Return the names of the packages that nodes of a suite can install."""
    return sorted({*COMMON, *PER_SUITE.get(suite, ()), *_unpinned()})


def _unpinned() -> set[str]:
    """Return the stacks' packages without a pinned version."""
    names: set[str] = set()
    for stack in stack_data().values():
        driver = stack["driver"]
        if driver:
            names.update(name for name in driver["build_tools"] if "{" not in name)
            names.update(driver["diagnostics"])
            names.update(name for name, version in driver["packages"].items() if not version)
    return names


def mirror(suite: str) -> Path:
    """Return a repository with only those packages and their dependencies."""
    recipe = {
        "version": 2,
        "suite": suite,
        "packages": packages_of(suite),
        "mirror": DEBIAN,
        "base": base(suite).parent.name,
    }
    recipe["key"] = repository.fingerprint()
    return cache.artifact(f"debian-{suite}", recipe, lambda target: _build(suite, target))


def _build(suite: str, target: Path) -> None:
    with workroom(suite, target.with_name(f"{target.name}.work")) as root:
        chroot = ["chroot", str(root)]
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        run([*chroot, "apt-get", "update", "-q"], env=quiet)
        known = set(run([*chroot, "apt-cache", "pkgnames"]).split())
        wanted = [name for name in packages_of(suite) if name in known]
        absent = sorted(set(packages_of(suite)) - set(wanted))
        if absent:
            say(f"Debian {suite} has no {' '.join(absent)}")
        run(
            [*chroot, "apt-get", "install", "-y", "-q", "--no-install-recommends", "--download-only", *wanted],
            env=quiet,
        )
        debs = sorted((root / "var/cache/apt/archives").glob("*.deb"))
        if not debs:
            raise RigError(f"apt downloaded nothing for Debian {suite}")
        pool = target / "pool"
        pool.mkdir()
        for deb in debs:
            # "%3a" stands for an epoch's colon in apt's cache; a web server would decode it.
            shutil.copyfile(deb, pool / deb.name.replace("%3a", "-epoch-"))
    repository.publish(target, {repository.Suite(suite, "main"): target / "pool"})


@contextlib.contextmanager
def workroom(suite: str, folder: Path) -> Iterator[Path]:
    """Yield a temporary root file system of a suite with this machine's name resolution."""
    for name in ("upper", "work", "root"):
        (folder / name).mkdir(parents=True)
    root = folder / "root"
    options = f"lowerdir={base(suite)},upperdir={folder / 'upper'},workdir={folder / 'work'}"
    run(["mount", "-t", "overlay", "xpu-rig-workroom", "-o", options, str(root)])
    try:
        (root / "etc/resolv.conf").unlink(missing_ok=True)
        write(root / "etc/resolv.conf", Path("/etc/resolv.conf").read_text())
        write(root / "etc/hosts", Path("/etc/hosts").read_text())
        write(root / "etc/apt/sources.list", f"deb {DEBIAN} {suite} main\n")
        write(root / "etc/apt/apt.conf.d/99xpu-rig", 'Acquire::Retries "5";\n')
        yield root
    finally:
        run(["umount", str(root)])
        cache.remove(folder)


def sources(url: str, path: str, suites: Sequence[str]) -> str:
    """Return one-line apt sources for suites of a repository of the mirror."""
    signed = "[signed-by=/usr/share/keyrings/xpu-rig.gpg]"
    return "".join(f"deb {signed} {url}/{path} {suite} main\n" for suite in suites)
