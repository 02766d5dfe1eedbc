"""A fixture Miniconda installer: the same command line, with a relocated Python of Debian's inside."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Union

from rig import cache, debian
from rig.deb import File, Link, tarball
from rig.host import RigError, write
from rig.userland import base
from rig.wheels import stack_data

SUITE, PYTHON = "bookworm", "3.11"
#: Debian packages with the parts of Python that are not in the base.
PARTS = ("python3.11-venv", "python3-pip-whl", "python3-setuptools-whl", "python3-distutils")
WHEELS = "usr/share/python-wheels"

INSTALLER = """\
#!/bin/sh
# A test fixture of the Ansible collection xpu.fleet in the place of Miniconda's installer.
# It brings Debian's Python {python} and a conda that can make environments with it.
set -eu
prefix="${{HOME:-/opt}}/miniconda3" batch=0 update=0
while getopts "bfhup:" option; do
    case "$option" in
        b) batch=1 ;;
        f) update=1 ;;
        u) update=1 ;;
        p) prefix=$OPTARG ;;
        *) echo "usage: $0 -b [-u] [-p PREFIX]"; exit 2 ;;
    esac
done
if [ "$batch" = 0 ]; then
    echo "ERROR: this fixture installs in batch mode only (-b)" >&2
    exit 2
fi
if [ -e "$prefix" ] && [ "$update" = 0 ]; then
    echo "ERROR: File or directory already exists: '$prefix'" >&2
    echo "If you want to update an existing installation, use the -u option." >&2
    exit 1
fi
mkdir -p "$prefix"
prefix=$(cd "$prefix" && pwd)
echo "PREFIX=$prefix"
sed '1,/^__PAYLOAD__$/d' "$0" | tar -xzf - --no-same-owner -C "$prefix"
sed -i "1s|.*|#!$prefix/bin/python|" "$prefix/bin/conda"
echo "installation finished (test fixture)."
exit 0
__PAYLOAD__
"""

CONDA = '''\
#!/usr/bin/env python
"""A test fixture of the Ansible collection xpu.fleet in the place of conda: it makes environments with its Python."""
import argparse
import json
import pathlib
import shutil
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
VERSION, PYTHON = "{conda}", "{python}"


def create(options):
    prefix = pathlib.Path(options.prefix or ROOT / "envs" / (options.name or "")).absolute()
    for spec in options.specs:
        name, _, version = spec.replace("==", "=").partition("=")
        if name == "python" and version.rstrip(".*") not in ("", "3", PYTHON):
            sys.exit(f"PackagesNotFoundError: The following packages are not available: {{spec}} (fixture: {{PYTHON}})")
        if name not in ("python", "pip"):
            sys.exit(f"PackagesNotFoundError: The following packages are not available: {{spec}} (test fixture)")
    if prefix.exists():
        if not options.yes:
            sys.exit(f"CondaValueError: prefix already exists: {{prefix}}")
        shutil.rmtree(prefix)
    for folder in ("bin", "lib", "include"):
        if (ROOT / folder).exists():
            shutil.copytree(ROOT / folder, prefix / folder, symlinks=True)
    (prefix / "bin" / "conda").unlink()
    meta = prefix / "conda-meta"
    meta.mkdir()
    (meta / "history").write_text(f"# cmd: {{' '.join(sys.argv)}}\\n")
    (meta / f"python-{{PYTHON}}-fixture.json").write_text(json.dumps({{"name": "python", "version": PYTHON}}))
    print(f"environment made at {{prefix}} (test fixture)")


def main():
    parser = argparse.ArgumentParser(prog="conda")
    parser.add_argument("-V", "--version", action="version", version=f"conda {{VERSION}}")
    commands = parser.add_subparsers(required=True)
    make = commands.add_parser("create")
    make.add_argument("-y", "--yes", action="store_true")
    make.add_argument("-q", "--quiet", action="store_true")
    make.add_argument("-p", "--prefix")
    make.add_argument("-n", "--name")
    make.add_argument("-c", "--channel", action="append")
    make.add_argument("--override-channels", action="store_true")
    make.add_argument("--no-default-packages", action="store_true")
    make.add_argument("--offline", action="store_true")
    make.add_argument("specs", nargs="*")
    make.set_defaults(run=create)
    info = commands.add_parser("info")
    info.add_argument("--json", action="store_true")
    info.set_defaults(run=lambda _: print(json.dumps({{"conda_version": VERSION, "root_prefix": str(ROOT)}})))
    options = parser.parse_args()
    options.run(options)


main()
'''


def installers() -> Path:
    """Return a folder with a fixture of every Miniconda installer that a stack names."""
    pythons = [stack["python"] for stack in stack_data().values()]
    names = sorted({python["miniconda"]["url"].rpartition("/")[2] for python in pythons if "miniconda" in python})
    recipe = [3, names, INSTALLER, CONDA, base(SUITE).parent.name, debian.mirror(SUITE).name]
    return cache.artifact("miniconda", recipe, lambda target: _build(names, target))


def checksum(installer: Path) -> str:
    """Return an installer's sha256."""
    return hashlib.sha256(installer.read_bytes()).hexdigest()


def _build(names: list[str], target: Path) -> None:
    for name in names:
        conda = name.split("_")[1].partition("-")[0]
        payload = tarball(dict(_payload(conda)))
        (target / name).write_bytes(INSTALLER.format(python=PYTHON).encode() + payload)
        write(target / f"{name}.sha256", f"{checksum(target / name)}\n")


def _payload(conda: str) -> Iterator[tuple[str, Union[File, Link]]]:
    """Yield the installer's files, by path: a Python with its library, and conda."""
    root = base(SUITE)
    yield "/bin/conda", File(CONDA.format(conda=conda, python=PYTHON), 0o755)
    yield f"/bin/python{PYTHON}", File((root / f"usr/bin/python{PYTHON}").read_bytes(), 0o755)
    yield "/bin/python3", Link(f"python{PYTHON}")
    yield "/bin/python", Link(f"python{PYTHON}")
    yield "/conda-meta/history", File("# xpu.fleet test fixture\n")
    with tempfile.TemporaryDirectory() as folder:
        for part in PARTS:
            found = sorted((debian.mirror(SUITE) / "pool").glob(f"{part}_*.deb"))
            if not found:
                raise RigError(f"the mirror of Debian {SUITE} lacks {part}")
            subprocess.run(["dpkg-deb", "-x", str(found[-1]), folder], check=True)
        yield from _library(root / f"usr/lib/python{PYTHON}")
        yield from _library(Path(folder) / f"usr/lib/python{PYTHON}")
        for wheel in (Path(folder) / WHEELS).glob("*.whl"):
            yield f"/lib/python{PYTHON}/ensurepip/_bundled/{wheel.name}", File(wheel.read_bytes())


def _library(top: Path) -> Iterator[tuple[str, Union[File, Link]]]:
    for path in sorted(top.rglob("*")):
        if path.name == "EXTERNALLY-MANAGED":
            continue  # Debian's marker forbids pip in its own Python; this one is the user's.
        if path.is_file() and not path.is_symlink() and "__pycache__" not in path.parts:
            data = path.read_bytes()
            name = path.relative_to(top)
            if str(name) == "ensurepip/__init__.py":
                # Debian's looks for its wheels only below /usr.
                bundled = b"os.path.join(os.path.dirname(__file__), '_bundled')"
                data = data.replace(b"sysconfig.get_config_var('WHEEL_PKG_DIR')", bundled)
            yield f"/lib/python{PYTHON}/{name}", File(data)
