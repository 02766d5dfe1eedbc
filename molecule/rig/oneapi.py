"""Fixture oneAPI packages: setvars.sh and each component's vars.sh do in small what Intel's do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Union

from rig.deb import File, Link, Package
from rig.elf import shared_library


class Component(NamedTuple):
    """One component: its folder, the variable that names it, its library and where that is."""

    folder: str
    variable: str
    soname: str
    libraries: str = "lib"
    binaries: str = ""


COMPONENTS = {
    "intel-oneapi-compiler-dpcpp-cpp": Component("compiler", "CMPLR_ROOT", "libsycl.so.6", "linux/lib", "linux/bin"),
    "intel-oneapi-mkl": Component("mkl", "MKLROOT", "libmkl_core.so.2", "lib/intel64"),
    "intel-oneapi-dnnl": Component("dnnl", "DNNLROOT", "libdnnl.so.3", "cpu_dpcpp_gpu_dpcpp/lib"),
    "intel-oneapi-ccl": Component("ccl", "CCL_ROOT", "libccl.so.1", "lib/cpu_gpu_dpcpp"),
    "intel-oneapi-mpi": Component("mpi", "I_MPI_ROOT", "libmpi.so.12", "lib/release", "bin"),
    "intel-oneapi-tbb": Component("tbb", "TBBROOT", "libtbb.so.12", "lib/intel64/gcc4.8"),
}
COMMON = "intel-oneapi-common-vars"

SETVARS = """\
#!/bin/bash
# A test fixture of the Ansible collection xpu.fleet in the place of Intel's setvars.sh.
# Source it: . {root}/setvars.sh [--force]
if [ "${{SETVARS_COMPLETED:-}}" = 1 ] && [ "${{1:-}}" != --force ]; then
    echo ":: WARNING: setvars.sh has already been run; --force runs it again" >&2
    return 3 2>/dev/null || exit 3
fi
echo ":: initializing oneAPI environment (test fixture) ..."
export ONEAPI_ROOT={root}
for vars in {root}/*/latest/env/vars.sh; do
    [ -r "$vars" ] || continue
    component=${{vars#{root}/}}
    echo ":: ${{component%%/*}} -- latest"
    . "$vars"
done
unset vars component
export SETVARS_COMPLETED=1
echo ":: oneAPI environment initialized ::"
"""

VARS = """\
# A test fixture of the Ansible collection xpu.fleet: {name} {version}. setvars.sh sources it.
export {variable}={home}
export CPATH="{home}/include${{CPATH:+:$CPATH}}"
export LIBRARY_PATH="{home}/{libraries}${{LIBRARY_PATH:+:$LIBRARY_PATH}}"
export LD_LIBRARY_PATH="{home}/{libraries}${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"
export CMAKE_PREFIX_PATH="{home}${{CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}}"
"""


def packages(root: str, versions: Mapping[str, str]) -> list[Package]:
    """Return the packages of a oneAPI release: ``versions`` of every package, installed below ``root``."""
    return [_package(root, name, version, versions) for name, version in versions.items()]


def _package(root: str, name: str, version: str, versions: Mapping[str, str]) -> Package:
    if name == COMMON:
        return Package(name, version, {f"{root}/setvars.sh": File(SETVARS.format(root=root), 0o755)}, "all")
    main = name.removesuffix("-devel")
    component = COMPONENTS.get(main)
    if component is None:
        # A kit: no file of its own, the rest of the release at its exact versions.
        others = [f"{other} (= {number})" for other, number in versions.items() if other != name]
        return Package(name, version, depends=others)
    release = version.partition("-")[0]
    home = f"{root}/{component.folder}/{release}"
    if name != main:
        header = File(f"/* xpu.fleet test fixture: {name} {version} */\n")
        depends = [f"{main} (= {versions[main]})"] if main in versions else [main]
        return Package(name, version, {f"{home}/include/{component.folder}.h": header}, depends=depends)
    text = VARS.format(
        name=name, version=version, variable=component.variable, home=home, libraries=component.libraries
    )
    files: dict[str, Union[File, Link]] = {
        f"{root}/{component.folder}/latest": Link(release),
        f"{home}/{component.libraries}/{component.soname}": File(shared_library(component.soname)),
    }
    if component.binaries:
        text += f'export PATH="{home}/{component.binaries}:$PATH"\n'
        tool = File(f'#!/bin/sh\necho "{name} {version}: xpu.fleet test fixture"\n', 0o755)
        files[f"{home}/{component.binaries}/{'icpx' if component.folder == 'compiler' else 'mpirun'}"] = tool
    files[f"{home}/env/vars.sh"] = File(text)
    return Package(name, version, files, depends=[COMMON])
