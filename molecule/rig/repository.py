"""Signed apt repositories on disk, in the layout of real ones, and their signing keys."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rig import cache
from rig.host import RigError, run, write


@dataclass(frozen=True)
class Suite:
    """One suite of a repository: ``deb URI name component``."""

    name: str
    component: str
    architectures: Sequence[str] = field(default=("amd64",))


def sign_key(name: str = "rig") -> Path:
    """Return a GnuPG home with one signing key, made at its first use and kept in the cache."""
    home = cache.KEYS / f"gnupg-{name}"
    if (home / "fingerprint").exists():
        return home
    with cache.lock(f"gnupg-{name}"):
        if (home / "fingerprint").exists():
            return home
        home.mkdir(parents=True, mode=0o700, exist_ok=True)
        user = f"xpu.fleet test fixture ({name}) <{name}@fixture.invalid>"
        gpg = ["gpg", "--batch", "--homedir", str(home)]
        run([*gpg, "--passphrase", "", "--quick-generate-key", user, "rsa3072", "sign", "never"])
        listing = run([*gpg, "--with-colons", "--list-keys"]).splitlines()
        fingerprint = next(line.split(":")[9] for line in listing if line.startswith("fpr:"))
        for form, arguments in (("gpg", []), ("asc", ["--armor"])):
            run([*gpg, *arguments, "--output", str(home / f"public.{form}"), "--export", fingerprint])
        write(home / "fingerprint", f"{fingerprint}\n")
        run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)
    return home


def fingerprint(name: str = "rig") -> str:
    """Return the fingerprint of a signing key."""
    return (sign_key(name) / "fingerprint").read_text().strip()


def publish(root: Path, suites: Mapping[Suite, Path]) -> None:
    """Index and sign a repository at ``root``; each suite names its folder of packages below it."""
    home = sign_key()
    for suite, pool in suites.items():
        dist = root / "dists" / suite.name
        packages = _apt_ftparchive(["packages", str(pool.relative_to(root))], root)
        for architecture in suite.architectures:
            own = packages if architecture == "amd64" else ""
            index = dist / suite.component / f"binary-{architecture}"
            write(index / "Packages", own)
            run(["gzip", "--keep", "--no-name", str(index / "Packages")])
        options = {
            "Origin": "xpu.fleet test fixture",
            "Label": "xpu.fleet test fixture",
            "Suite": suite.name,
            "Codename": suite.name.split("/")[0],
            "Components": suite.component,
            "Architectures": " ".join(suite.architectures),
        }
        flags = [part for key, value in options.items() for part in ("-o", f"APT::FTPArchive::Release::{key}={value}")]
        release = _apt_ftparchive([*flags, "release", str(dist)], root)
        write(dist / "Release", release)
        gpg = ["gpg", "--batch", "--yes", "--homedir", str(home), "--digest-algo", "SHA512"]
        run([*gpg, "--clearsign", "--output", str(dist / "InRelease"), str(dist / "Release")])
        run([*gpg, "--armor", "--detach-sign", "--output", str(dist / "Release.gpg"), str(dist / "Release")])
    run(["gpgconf", "--homedir", str(home), "--kill", "all"], check=False)


def collect(packages: Sequence[Path], pool: Path) -> None:
    """Link packages into a pool, or copy them if linking is impossible."""
    pool.mkdir(parents=True, exist_ok=True)
    for package in packages:
        try:
            (pool / package.name).hardlink_to(package)
        except OSError:
            shutil.copyfile(package, pool / package.name)


def _apt_ftparchive(arguments: Sequence[str], folder: Path) -> str:
    result = subprocess.run(["apt-ftparchive", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RigError(f"apt-ftparchive {arguments[0]} in {folder}: {result.stderr}")
    return result.stdout
