"""A signing key and a tiny signed apt repository, made with the tools that a Debian machine has."""

from __future__ import annotations

import subprocess
from pathlib import Path


class SigningKey:
    """An OpenPGP key in a home directory of its own."""

    def __init__(self, home: Path, name: str, *options: str, expires: str = "never") -> None:
        home.mkdir(mode=0o700)
        self._home = home
        self._gpg(*options, "--quick-generate-key", name, "ed25519", "sign", expires)
        listing = self._gpg("--list-keys", "--with-colons").decode()
        self.fingerprint = next(line.split(":")[9] for line in listing.splitlines() if line.startswith("fpr:"))
        self.binary = self._gpg("--export")
        self.armored = self._gpg("--export", "--armor")

    def sign(self, release: Path) -> None:
        """Write InRelease beside a Release file."""
        self._gpg("--yes", "--clearsign", "--output", str(release.with_name("InRelease")), str(release))

    def extend(self, until: str) -> bytes:
        """Let it live longer; return it."""
        self._gpg("--quick-set-expire", self.fingerprint, until)
        return self._gpg("--export")

    def secret(self) -> bytes:
        """Return the exported secret key."""
        return self._gpg("--export-secret-keys")

    def _gpg(self, *arguments: str) -> bytes:
        command = ["gpg", "--homedir", str(self._home), "--batch", "--quiet", "--passphrase", "", *arguments]
        return subprocess.run(command, check=True, capture_output=True).stdout


def make_repository(root: Path, key: SigningKey, packages: list[tuple[str, str, str]], suite: str = "jammy") -> str:
    """Make a repository of (name, version, depends) under a directory; return its URI."""
    pool = root / "pool"
    pool.mkdir(parents=True)
    for name, version, depends in packages:
        tree = root / "build" / f"{name}_{version}"
        (tree / "DEBIAN").mkdir(parents=True)
        control = f"Package: {name}\nVersion: {version}\nArchitecture: amd64\nMaintainer: nobody <nobody@example.com>\n"
        control += f"Description: fixture\n{f'Depends: {depends}' if depends else 'Section: misc'}\n"
        (tree / "DEBIAN/control").write_text(control, encoding="utf-8")
        subprocess.run(["dpkg-deb", "-Znone", "--build", tree, pool], check=True, capture_output=True)
    index = root / "dists" / suite / "arc" / "binary-amd64"
    index.mkdir(parents=True)
    scan = ["apt-ftparchive", "packages", "pool"]
    (index / "Packages").write_bytes(subprocess.run(scan, cwd=root, check=True, capture_output=True).stdout)
    options = {"Suite": suite, "Codename": suite, "Components": "arc", "Architectures": "amd64"}
    settings = [f"-oAPT::FTPArchive::Release::{name}={value}" for name, value in options.items()]
    release = subprocess.run(
        ["apt-ftparchive", *settings, "release", f"dists/{suite}"], cwd=root, check=True, capture_output=True
    ).stdout
    path = root / "dists" / suite / "Release"
    path.write_bytes(release)
    key.sign(path)
    return f"file://{root}"
