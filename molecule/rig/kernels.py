"""Fixture kernel packages, and DKMS packages with a small module that really builds against their headers."""

from __future__ import annotations

import io
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Union

from rig.deb import File, Link, Package
from rig.host import RigError

#: DKMS package -> the kernel module it builds; others build one of their own name.
MODULES = {"intel-i915-dkms": "i915", "intel-platform-vsec-dkms": "intel_vsec", "intel-platform-cse-dkms": "mei"}

SOURCES = Path(__file__).parent / "modules"


def module_source(package: str, module: str, version: str) -> str:
    """Return the C source of a DKMS package's module: i915 makes a GPU's device nodes, the others do nothing."""
    text = (SOURCES / ("i915.c" if module == "i915" else "nothing.c")).read_text()
    # In the source, not on the compiler's command line: srcversion tells versions apart as well then.
    for name, value in {"@PACKAGE@": package, "@MODULE@": module, "@VERSION@": version}.items():
        text = text.replace(name, value)
    return text


def dkms_package(package: str, version: str, name: str) -> Package:
    """Return a DKMS package; ``name`` is what ``dkms status`` calls it."""
    module = MODULES.get(package, name.replace("-", "_"))
    # dkms takes the part after the last slash of NAME/VERSION for the version and has no use for an epoch.
    release = version.rpartition(":")[2]
    source = f"/usr/src/{name}-{release}"
    configuration = (
        f'PACKAGE_NAME="{name}"\nPACKAGE_VERSION="{release}"\nBUILT_MODULE_NAME[0]="{module}"\n'
        'DEST_MODULE_LOCATION[0]="/updates/dkms"\nAUTOINSTALL="yes"\n'
        'MAKE[0]="make -C ${kernel_source_dir} M=${dkms_tree}/${PACKAGE_NAME}/${PACKAGE_VERSION}/build modules"\n'
        'CLEAN="true"\n'
    )
    files: dict[str, Union[File, Link]] = {
        f"{source}/dkms.conf": File(configuration),
        f"{source}/Makefile": File(f"obj-m := {module}.o\n{module}-y := fixture.o\n"),
        f"{source}/fixture.c": File(module_source(package, module, release)),
    }
    scripts = {
        "postinst": "#!/bin/sh\nset -e\n"
        f'[ "$1" != configure ] || /usr/lib/dkms/common.postinst {name} {release} /usr/share/{name} "" "$2"\n',
        "prerm": "#!/bin/sh\nset -e\n"
        f'case "$1" in remove|upgrade|deconfigure) dkms remove -m {name} -v {release} --all || true ;; esac\n',
    }
    return Package(package, version, files, architecture="all", depends=["dkms"], scripts=scripts)


def kernel_packages(release: str, packages: Mapping[str, str], debian: Path) -> Iterator[Package]:
    """Yield the packages of a kernel such as 5.19.0-41-generic.

    The headers are Debian's, saying that they are that release's; the rest has the files that tools look for and
    nothing that boots. ``debian`` is the pool with Debian's kernel headers.
    """
    for name, version in packages.items():
        if name == f"linux-headers-{release}":
            yield headers(name, version, release, debian)
        elif name == f"linux-image-{release}":
            yield Package(
                name,
                version,
                {f"/boot/vmlinuz-{release}": File("xpu.fleet test fixture: this is not a kernel and does not boot\n")},
                depends=[f"linux-modules-{release}", "kmod"],
                scripts={"postinst": _run_parts("postinst.d", release), "postrm": _run_parts("postrm.d", release)},
            )
        elif name == f"linux-modules-{release}":
            modules = f"/lib/modules/{release}"
            files = {
                f"{modules}/modules.order": File(""),
                f"{modules}/modules.builtin": File(""),
                f"{modules}/modules.builtin.modinfo": File(""),
                f"/boot/config-{release}": File("# xpu.fleet test fixture\nCONFIG_MODULES=y\n"),
                f"/boot/System.map-{release}": File(""),
            }
            yield Package(name, version, files)
        else:
            yield Package(name, version)


def headers(name: str, version: str, release: str, debian: Path) -> Package:
    """Return Debian's kernel headers as another release's, complete enough to build modules."""
    originals = sorted(debian.glob("linux-headers-*-amd64_*_amd64.deb"))
    if not originals:
        raise RigError(f"there are no kernel headers in {debian}")
    original = originals[-1]
    old = original.name.split("_")[0].removeprefix("linux-headers-")
    data = subprocess.run(["dpkg-deb", "--fsys-tarfile", str(original)], capture_output=True, check=True).stdout
    depends = subprocess.run(["dpkg-deb", "-f", str(original), "Depends"], capture_output=True, text=True, check=True)
    files: dict[str, Union[File, Link]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            path = member.name.removeprefix(".")
            if path.startswith("/usr/share/doc/"):
                continue
            if member.issym():
                files[path.replace(old, release)] = Link(member.linkname.replace(old, release))
            elif member.isfile():
                content = tar.extractfile(member)
                assert content
                text = content.read().replace(old.encode(), release.encode())
                files[path.replace(old, release)] = File(text, member.mode)
    scripts = {
        "postinst": "#!/bin/sh\nset -e\n[ ! -d /etc/kernel/header_postinst.d ] ||"
        f" run-parts --report --exit-on-error --arg={release} /etc/kernel/header_postinst.d\n"
    }
    return Package(name, version, files, depends=depends.stdout.strip().split(", "), scripts=scripts)


def _run_parts(folder: str, release: str) -> str:
    return (
        f'#!/bin/sh\nset -e\n[ ! -d /etc/kernel/{folder} ] || DEB_MAINT_PARAMS="$*" run-parts --report'
        f" --exit-on-error --arg={release} --arg=/boot/vmlinuz-{release} /etc/kernel/{folder}\n"
    )
