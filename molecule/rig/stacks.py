"""The vendor's apt repositories from the stacks' data, with fixture packages."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from rig import cache, deb, debian, elf, golden, kernels, linux, oneapi, repository
from rig.deb import File, Package
from rig.host import run
from rig.wheels import stack_data, system_data

Stack = Mapping[str, Any]
CODE: list[ModuleType] = [deb, elf, kernels, oneapi]

#: Their dependencies beside their own files, as in the real ones; the other packages have none.
DEPENDS = {
    "intel-opencl-icd": ["libigc1", "libigdfcl1", "libigdgmm12", "ocl-icd-libopencl1 | libopencl1"],
    "intel-level-zero-gpu": ["libigc1", "libigdfcl1", "libigdgmm12"],
    "libigc1": ["libigdfcl1"],
}
#: Packages of a vendor's suite for which its stack names no version.
BUNDLED = {"intel-fw-gpu": "2024.17.5-329~22.04", "xpu-smi": "1.2.42-79~24.04"}
#: Packages that the PPA has newer than the archive.
PPA = {
    "intel-opencl-icd": "26.31.39395.14-1~24.04~ppa1",
    "libze-intel-gpu1": "26.31.39395.14-1~24.04~ppa1",
    "libze1": "1.32.0-1~24.04~ppa1",
}
#: The archive's versions of a stack's unpinned packages from the distribution. Fixtures of these versions.
DISTRIBUTION_VERSION = "23.43.27642.40-1fixture1"


class Slot(NamedTuple):
    """One suite of one repository."""

    path: str
    suite: str
    component: str
    architectures: tuple[str, ...]


def vendor(codename: str) -> Path:
    """Return the vendor's repositories, each under its URL's path: ``graphics/ubuntu``, ``oneapi``..."""
    stacks = system_data(codename)
    recipe = _recipe(stacks)
    return cache.artifact(f"vendor-{codename}", recipe, lambda target: _build(_vendor_slots(stacks), target))


def distribution(codename: str) -> Path:
    """Return the distribution's own packages for the stacks: jammy the kernels, noble the compute packages."""
    stacks = system_data(codename)
    pool = debian.mirror("bookworm") / "pool"
    made = _kernels(stacks, pool) if codename == "jammy" else _compute(stacks)
    slot = Slot("", codename, "main", ("amd64",))
    recipe = [_recipe(stacks), pool.parent.name, codename]
    return cache.artifact(f"ubuntu-{codename}", recipe, lambda target: _build({slot: list(made)}, target))


def machine_distribution(codename: str) -> Path:
    """Return the packages for virtual machines instead: kernels that boot, and a suite of updates with a newer one."""
    kernels_of: dict[str, Mapping[str, str]] = {}
    for stack in golden.stacks():
        if stack["kernel"].get("release"):
            kernels_of.setdefault(stack["kernel"]["release"], stack["kernel"]["packages"])
    installed = golden.installed()
    pool = debian.mirror("bookworm") / "pool"
    recipe = [
        1, codename, kernels_of, cache.source_of(linux, deb), installed.name, pool.parent.name,
        repository.fingerprint(), linux.GPU_SOURCE.read_text(),
        *(linux.kernel(release, next(iter(versions.values()))).name for release, versions in kernels_of.items()),
    ]  # fmt: skip

    def build(target: Path) -> None:
        pools = {name: target / "pool" / name / "main" for name in (codename, f"{codename}-updates")}
        repository.collect(_lacking(installed / "debs", pool), pools[codename])
        repository.collect(_lacking(installed / "updates", pool), pools[f"{codename}-updates"])
        for release, versions in kernels_of.items():
            for package in linux.packages(release, versions):
                package.write(pools[codename])
        repository.publish(target, {repository.Suite(name, "main"): folder for name, folder in pools.items()})

    return cache.artifact(f"ubuntu-{codename}-machines", recipe, build)


def _lacking(folder: Path, pool: Path) -> list[Path]:
    """Return a folder's packages that are missing in another pool."""
    return [path for path in sorted(folder.glob("*.deb")) if not (pool / path.name).exists()]


def _recipe(stacks: Mapping[str, Stack]) -> list[Any]:
    modules = [path.read_text() for path in sorted(kernels.SOURCES.glob("*.c"))]
    return [4, stacks, cache.source_of(*CODE), modules, DEPENDS, repository.fingerprint()]


def _build(slots: Mapping[Slot, list[Package]], target: Path) -> None:
    suites: dict[str, dict[repository.Suite, Path]] = {}
    for slot, packages in slots.items():
        root = target / slot.path
        pool = root / "pool" / slot.suite / slot.component
        pool.mkdir(parents=True)
        for package in packages:
            package.write(pool)
        suite = repository.Suite(slot.suite, slot.component, slot.architectures)
        suites.setdefault(slot.path, {})[suite] = pool
    for path, pools in suites.items():
        repository.publish(target / path, pools)


def _vendor_slots(stacks: Mapping[str, Stack]) -> dict[Slot, list[Package]]:
    slots: dict[Slot, dict[tuple[str, str], Package]] = {}
    for stack in stacks.values():
        makers = {"graphics": _graphics, "oneapi": _oneapi}
        for name, source in stack["repositories"].items():
            path = urllib.parse.urlsplit(source["uris"][0]).path.strip("/")
            slot = Slot(path, source["suites"][0], source["components"][0], tuple(source["architectures"]))
            known = slots.setdefault(slot, {})
            make = _ppa if "ppa." in source["uris"][0] else makers[name]
            for package in make(stack, stacks):
                known.setdefault((package.name, package.version), package)
    return {slot: list(packages.values()) for slot, packages in slots.items()}


def _graphics(stack: Stack, stacks: Mapping[str, Stack]) -> Iterator[Package]:
    """Yield a stack's drivers, each also in a newer version, against which pins and holds can be tested."""
    known = {**BUNDLED, **_versions(stacks)}
    driver = stack["driver"]
    for entry in driver["dkms"]:
        for version in _with_newer(entry["version"] or known[entry["package"]]):
            yield kernels.dkms_package(entry["package"], version, entry["module"])
    for name, pinned in {**driver["firmware"], **driver["packages"]}.items():
        if pinned or name in known:
            for version in _with_newer(pinned or known[name]):
                depends = [other for other in DEPENDS.get(name, ()) if other in driver["packages"] or "|" in other]
                yield Package(name, version, _driver_files(name), depends=depends)


def _ppa(stack: Stack, _: Mapping[str, Stack]) -> Iterator[Package]:
    """Yield newer packages than the distribution's, as in Intel's and Canonical's PPA."""
    for name in stack["driver"]["packages"].keys() & PPA.keys():
        yield Package(name, PPA[name], _driver_files(name))


def _oneapi(stack: Stack, _: Mapping[str, Stack]) -> Iterator[Package]:
    layer = stack["oneapi"]
    versions = dict(layer["required"])
    for component in layer["components"].values():
        versions.update(component)
    yield from oneapi.packages(layer["root"], versions)


def _kernels(stacks: Mapping[str, Stack], pool: Path) -> Iterator[Package]:
    seen = set()
    for stack in stacks.values():
        kernel = stack["kernel"]
        if kernel.get("release") and kernel["release"] not in seen:
            seen.add(kernel["release"])
            yield from kernels.kernel_packages(kernel["release"], kernel["packages"], pool)


def _compute(stacks: Mapping[str, Stack]) -> Iterator[Package]:
    """Yield packages that stacks without a vendor's repository install and Debian lacks."""
    present = {path.name.split("_")[0] for path in (debian.mirror("trixie") / "pool").glob("*.deb")}
    ever = stack_data()
    for title, stack in stacks.items():
        # A stack with a repository for some cards takes the distribution's packages for others.
        if stack["driver"] and not ever[title]["repositories"]:
            for name, pinned in stack["driver"]["packages"].items():
                if name not in present:
                    yield Package(name, pinned or DISTRIBUTION_VERSION, _driver_files(name))


def _driver_files(name: str) -> dict[str, Any]:
    if name == "intel-opencl-icd":
        library = "/usr/lib/x86_64-linux-gnu/intel-opencl/libigdrcl.so"
        return {
            "/etc/OpenCL/vendors/intel.icd": File(f"{library}\n"),
            library: File(elf.shared_library("libigdrcl.so")),
        }
    if name == "intel-fw-gpu":
        return {"/lib/firmware/updates/i915/xpu-fleet-fixture.bin": File("not firmware: a test fixture\n")}
    return {}


def _versions(stacks: Mapping[str, Stack]) -> dict[str, str]:
    """Return a pinned version of some stack for every package of the vendor."""
    found: dict[str, str] = {}
    for stack in stacks.values():
        driver = stack["driver"]
        if driver:
            pins = {entry["package"]: entry["version"] for entry in driver["dkms"]}
            pins |= {**driver["firmware"], **driver["packages"]}
            found.update({name: version for name, version in pins.items() if version})
    return found


def _with_newer(version: str) -> tuple[str, str]:
    """Return a version and one that apt considers newer."""
    newer = re.sub(r"^(\d+[.:-])?(\d+)", lambda found: f"{found[1] or ''}{int(found[2]) + 1}", version, count=1)
    run(["dpkg", "--compare-versions", newer, "gt", version])
    return version, newer
