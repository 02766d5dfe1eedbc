"""Debian packages written directly: an ar archive of a control and a data tarball, the same bytes every time."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Union

MAINTAINER = "xpu.fleet test rig <rig@fixture.invalid>"
README = (
    "This is a test fixture of the Ansible collection xpu.fleet. It has the name and version of the package that\n"
    "{name} {version} stands for, and none of its code. Do not use it outside of tests.\n"
)


@dataclass(frozen=True)
class File:
    """A regular file of a package."""

    content: Union[bytes, str]
    mode: int = 0o644

    @property
    def data(self) -> bytes:
        """The content as bytes."""
        return self.content if isinstance(self.content, bytes) else self.content.encode()


@dataclass(frozen=True)
class Link:
    """A symbolic link of a package."""

    target: str


#: What a package installs: absolute path -> file or link.
Files = Mapping[str, Union[File, Link]]


@dataclass(frozen=True)
class Package:
    """One binary package."""

    name: str
    version: str
    files: Files = field(default_factory=dict)
    architecture: str = "amd64"
    depends: Sequence[str] = ()
    provides: Sequence[str] = ()
    #: preinst, postinst, prerm, postrm -> shell script
    scripts: Mapping[str, str] = field(default_factory=dict)
    section: str = "misc"

    @property
    def filename(self) -> str:
        """File name in a pool; the epoch is not part of it, as everywhere."""
        return f"{self.name}_{self.version.rpartition(':')[2]}_{self.architecture}.deb"

    def write(self, pool: Path) -> Path:
        """Write the package into a folder and return its path."""
        files: dict[str, Union[File, Link]] = {
            f"/usr/share/doc/{self.name}/README": File(README.format(name=self.name, version=self.version)),
            **self.files,
        }
        control = {"control": File(self._control(files))}
        configuration = [path for path in files if path.startswith("/etc/")]
        if configuration:
            control["conffiles"] = File("".join(f"{path}\n" for path in sorted(configuration)))
        for script, text in self.scripts.items():
            control[script] = File(text, 0o755)
        members = {
            "debian-binary": b"2.0\n",
            "control.tar.gz": tarball(control),
            "data.tar.gz": tarball(files),
        }
        path = pool / self.filename
        pool.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive(members))
        return path

    def _control(self, files: Files) -> str:
        size = sum(len(entry.data) for entry in files.values() if isinstance(entry, File))
        fields = {
            "Package": self.name,
            "Version": self.version,
            "Architecture": self.architecture,
            "Maintainer": MAINTAINER,
            "Installed-Size": str(size // 1024 + 1),
            "Depends": ", ".join(self.depends),
            "Provides": ", ".join(self.provides),
            "Section": self.section,
            "Priority": "optional",
            "Description": f"test fixture in the place of {self.name}",
        }
        return "".join(f"{name}: {value}\n" for name, value in fields.items() if value)


def tarball(files: Files) -> bytes:
    """Return a gzipped tarball with root-owned files, their parent folders and no times."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.GNU_FORMAT) as tar:
        folders = {"."}
        for name in sorted(files):
            entry = files[name]
            path = PurePosixPath(name.lstrip("/"))
            for parent in reversed(path.parents):
                if str(parent) not in folders:
                    folders.add(str(parent))
                    info = tarfile.TarInfo(f"./{parent}")
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    tar.addfile(_root(info))
            info = _root(tarfile.TarInfo(f"./{path}"))
            if isinstance(entry, Link):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, entry.target, 0o777
                tar.addfile(info)
            else:
                info.size, info.mode = len(entry.data), entry.mode
                tar.addfile(info, io.BytesIO(entry.data))
    return gzip.compress(raw.getvalue(), mtime=0)


def archive(members: Mapping[str, bytes]) -> bytes:
    """Return an ar archive."""
    out = io.BytesIO()
    out.write(b"!<arch>\n")
    for name, data in members.items():
        out.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(data):<10}`\n".encode())
        out.write(data + b"\n" * (len(data) % 2))
    return out.getvalue()


def _root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = "root"
    return info
