"""Packages, libraries and modules that the rig writes byte by byte are valid for the real tools."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Union

import pytest
from rig import kernels, oneapi, stacks
from rig.deb import File, Link, Package
from rig.elf import shared_library


def fields(package: Path) -> dict[str, str]:
    """A package's control fields as dpkg reads them."""
    text = subprocess.run(["dpkg-deb", "--field", str(package)], capture_output=True, text=True, check=True).stdout
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def test_dpkg_reads_a_package(tmp_path: Path) -> None:
    files: dict[str, Union[File, Link]] = {
        "/etc/a.conf": File("a=1\n"),
        "/opt/bin/tool": File("#!/bin/sh\n", 0o755),
        "/opt/latest": Link("bin"),
    }
    path = Package(
        "some", "1:2.0-3", files, depends=["libc6", "other (= 1)"], scripts={"postinst": "#!/bin/sh\n"}
    ).write(tmp_path)
    assert path.name == "some_2.0-3_amd64.deb"
    assert fields(path)["Version"] == "1:2.0-3"
    assert fields(path)["Depends"] == "libc6, other (= 1)"
    subprocess.run(["dpkg-deb", "--extract", str(path), str(tmp_path / "x")], check=True)
    assert (tmp_path / "x/opt/bin/tool").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "x/opt/latest").readlink() == Path("bin")
    subprocess.run(["dpkg-deb", "--control", str(path), str(tmp_path / "c")], check=True)
    assert (tmp_path / "c/conffiles").read_text() == "/etc/a.conf\n"


def test_a_package_says_that_it_is_a_fixture(tmp_path: Path) -> None:
    path = Package("libigc1", "1.0", {}).write(tmp_path)
    subprocess.run(["dpkg-deb", "--extract", str(path), str(tmp_path / "x")], check=True)
    assert "test fixture" in (tmp_path / "x/usr/share/doc/libigc1/README").read_text()


def test_a_package_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    written = [Package("a", "1", {"/x": File("x")}).write(tmp_path / name).read_bytes() for name in "ab"]
    assert written[0] == written[1]


def test_the_loader_takes_the_library(tmp_path: Path) -> None:
    path = tmp_path / "libmkl_core.so.2"
    path.write_bytes(shared_library(path.name))
    assert ctypes.CDLL(str(path)).xpu_fleet_fixture() == 0


@pytest.mark.parametrize(
    "version",
    ["23.17.26241.33-647~22.04", "2023.20.0-21", "1.23.5.19.230406.21.5.17.0.1034+i38-1", "1:1.0-1"],
)
def test_the_newer_version_is_newer_for_dpkg(version: str) -> None:
    assert stacks._with_newer(version)[0] == version


def test_a_dkms_package_names_its_module() -> None:
    package = kernels.dkms_package("intel-i915-dkms", "1.2+i38-1", "intel-i915-dkms")
    text = package.files["/usr/src/intel-i915-dkms-1.2+i38-1/dkms.conf"]
    assert isinstance(text, File)
    assert 'BUILT_MODULE_NAME[0]="i915"' in str(text.content)


def test_setvars_exports_what_the_components_say(tmp_path: Path) -> None:
    versions = {"intel-oneapi-common-vars": "1-1", "intel-oneapi-mkl": "2023.2.0-5", "intel-basekit": "9-9"}
    root = tmp_path / "oneapi"
    for package in oneapi.packages(str(root), versions):
        subprocess.run(["dpkg-deb", "--extract", str(package.write(tmp_path)), str(tmp_path / "x")], check=True)
    (tmp_path / "x" / root.relative_to("/")).rename(root)
    script = f". {root}/setvars.sh > /dev/null && echo $MKLROOT && echo $LD_LIBRARY_PATH"
    said = subprocess.run(
        ["bash", "-c", script], env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said == [f"{root}/mkl/2023.2.0", f"{root}/mkl/2023.2.0/lib/intel64"]


def test_a_kit_depends_on_its_parts_exactly() -> None:
    versions = {"intel-oneapi-mkl": "2-1", "intel-basekit": "9-9"}
    kit = oneapi.packages("/opt", versions)[1]
    assert kit.depends == ["intel-oneapi-mkl (= 2-1)"]
