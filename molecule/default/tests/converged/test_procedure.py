"""The steps of Intel's procedure for Arc cards, one by one, on the converged node."""

from __future__ import annotations

import re
from typing import Any

import pytest

testinfra_hosts = ["ansible://arc"]

GRAPHICS_SOURCES = "/etc/apt/sources.list.d/intel-graphics.sources"
ONEAPI_SOURCES = "/etc/apt/sources.list.d/intel-oneapi.sources"


def exact_packages(stack: dict[str, Any]) -> dict[str, str]:
    """Driver packages whose version the stack fixes."""
    driver = stack["driver"]
    packages = {**driver["packages"], **driver["firmware"], **{e["package"]: e["version"] for e in driver["dkms"]}}
    return {name: version for name, version in packages.items() if version}


def installed_versions(host: Any) -> dict[str, str]:
    """Every installed package and its version, read once."""
    lines = host.check_output("dpkg-query -W -f '${db:Status-Status} ${Package} ${Version}\n'").splitlines()
    return {name: version for status, name, version in (line.split() for line in lines) if status == "installed"}


@pytest.mark.parametrize("repository", ["graphics", "oneapi"])
def test_the_repository_is_trusted_by_its_own_key_only(host: Any, stack: dict[str, Any], repository: str) -> None:
    wanted = stack["repositories"][repository]
    sources = host.file(wanted["sources"]).content_string
    assert f"Signed-By: {wanted['keyring']}" in sources
    assert f"Suites: {' '.join(wanted['suites'])}" in sources
    assert f"Components: {' '.join(wanted['components'])}" in sources
    assert f"Architectures: {' '.join(wanted['architectures'])}" in sources
    keyring = host.file(wanted["keyring"])
    assert (keyring.user, keyring.mode) == ("root", 0o644)
    assert not keyring.content.startswith(b"-----BEGIN")
    assert not host.file("/etc/apt/trusted.gpg").exists


def test_leftover_one_line_sources_are_gone_and_apt_is_content(host: Any, stack: dict[str, Any]) -> None:
    for repository in stack["repositories"].values():
        for leftover in repository["superseded"]:
            assert not host.file(leftover).exists
    update = host.run("apt-get update")
    assert update.rc == 0
    assert not re.search(r"^[WE]:", update.stderr, re.MULTILINE), update.stderr


@pytest.mark.parametrize(
    "leftover",
    ["/etc/apt/apt.conf.d/51xpu-fleet-proxy", "/etc/systemd/system/xpuserve@0.service.d/gpu.conf"],
    ids=["proxy", "device"],
)
def test_what_earlier_settings_left_is_gone(host: Any, leftover: str) -> None:
    assert not host.file(leftover).exists


def test_the_kernel_belongs_to_the_host(host: Any, stack: dict[str, Any]) -> None:
    assert f"linux-image-{stack['kernel']['release']}" not in installed_versions(host)


def test_build_tools_and_headers_are_there(host: Any, stack: dict[str, Any]) -> None:
    installed = installed_versions(host)
    assert set(stack["driver"]["build_tools"]) <= set(installed)
    headers = f"linux-headers-{stack['kernel']['release']}"
    assert installed[headers] == stack["kernel"]["packages"][headers]


def test_every_driver_package_has_its_exact_version(host: Any, stack: dict[str, Any]) -> None:
    installed = installed_versions(host)
    wanted = exact_packages(stack)
    assert {name: installed.get(name) for name in wanted} == wanted


def test_driver_packages_without_a_version_are_installed(host: Any, stack: dict[str, Any]) -> None:
    wanted = {name for name, version in stack["driver"]["packages"].items() if not version}
    assert wanted <= set(installed_versions(host))


def test_every_module_is_built_for_the_kernel_of_the_stack(host: Any, stack: dict[str, Any]) -> None:
    kernel = stack["kernel"]["release"]
    status = host.check_output("dkms status")
    for entry in stack["driver"]["dkms"]:
        assert re.search(rf"^{re.escape(entry['module'])}/\S+, {re.escape(kernel)}, x86_64: installed", status, re.M)
        # A newer kernel that comes along is not Intel's: a module build for it would fail, and apt with it.
        settings = host.file(f"/etc/dkms/{entry['module']}.conf").content_string
        assert 'BUILD_EXCLUSIVE_KERNEL="^' + kernel.replace(".", r"\.") + '$"' in settings
    assert host.run(f"find /lib/modules/{kernel}/updates -name '*.ko*' | grep -q .").rc == 0


def test_a_module_that_is_missing_is_named_and_built_again(host: Any, stack: dict[str, Any], site: Any) -> None:
    kernel = stack["kernel"]["release"]
    module = stack["driver"]["dkms"][0]["module"]
    built = rf"^{re.escape(module)}/(\S+), {re.escape(kernel)}, x86_64: installed"
    found = re.search(built, host.check_output("dkms status"), re.MULTILINE)
    assert found
    version = found[1]
    source = f"/usr/src/{module}-{version}"
    assert host.run(f"dkms unbuild {module}/{version} -k {kernel}").rc == 0
    assert host.run(f"mv {source}/Makefile {source}/Makefile.away").rc == 0
    broken = site()
    assert host.run(f"mv {source}/Makefile.away {source}/Makefile").rc == 0
    assert broken.status != 0, broken.output
    assert f"DKMS module {module} is not built for kernel {kernel}" in broken.output, broken.output
    mended = site()
    assert mended.status == 0, mended.output
    assert re.search(built, host.check_output("dkms status"), re.MULTILINE), mended.output


def test_nothing_moves_the_drivers_later(host: Any, stack: dict[str, Any]) -> None:
    held = set(host.check_output("apt-mark showhold").split())
    wanted = set(exact_packages(stack)) | set(stack["oneapi"]["required"])
    assert wanted <= held
    # The mirror has a newer compute runtime; neither an upgrade nor naming the package takes it.
    newer = host.check_output("apt-cache madison intel-opencl-icd")
    assert len(newer.splitlines()) > 1
    for command in ("full-upgrade", "install intel-opencl-icd"):
        plan = host.run(f"apt-get --simulate --yes {command}").stdout
        assert not re.search(r"^Inst (intel-opencl-icd|intel-i915-dkms|intel-oneapi)", plan, re.MULTILINE)
    assert "Candidate: " + stack["driver"]["packages"]["intel-opencl-icd"] in host.check_output(
        "apt-cache policy intel-opencl-icd"
    )


def test_unattended_upgrades_leave_them_alone(host: Any, stack: dict[str, Any]) -> None:
    patterns = [
        line.split('"')[1]
        for line in host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist").splitlines()
        if '"' in line and line.split('"')[1]
    ]
    for package in [*exact_packages(stack), *stack["oneapi"]["required"]]:
        assert any(re.match(pattern, package) for pattern in patterns), package
    assert not any(re.match(pattern, "openssl") for pattern in patterns)


def test_people_and_the_service_are_in_the_render_group(host: Any) -> None:
    assert "render" in host.user("xpu").groups
    assert "render" in host.user("xpuserve").groups
    assert host.user("xpuserve").shell.endswith("nologin")


def test_the_diagnostics_are_there(host: Any, stack: dict[str, Any]) -> None:
    for tool in stack["driver"]["diagnostics"]:
        assert host.exists(tool)


def test_the_required_oneapi_has_its_exact_versions(host: Any, stack: dict[str, Any]) -> None:
    installed = installed_versions(host)
    wanted = stack["oneapi"]["required"]
    assert {name: installed.get(name) for name in wanted} == wanted


def test_the_service_runs_in_the_environment_of_setvars_and_the_stack(host: Any, stack: dict[str, Any]) -> None:
    pid = host.check_output("systemctl show --property MainPID --value xpuserve@0")
    environment = dict(
        entry.split("=", 1) for entry in host.file(f"/proc/{pid}/environ").content_string.split("\0") if "=" in entry
    )
    wanted = {**stack["environment"]["all"], **stack["environment"]["arc"]}
    assert {name: environment.get(name) for name in wanted} == wanted
    assert environment["MKLROOT"].startswith(stack["oneapi"]["root"])
    assert stack["oneapi"]["root"] in environment["LD_LIBRARY_PATH"]
    # tcmalloc crashes on Arc.
    assert "LD_PRELOAD" not in environment


def test_with_a_gpu_the_instance_may_open_its_render_node(site: Any) -> None:
    run = site({"xpu_device": "gpu"}, "--check", "--diff")
    assert run.status == 0, run.output
    assert "+DeviceAllow=/dev/dri/renderD128 rw" in run.output, run.output
    assert run.output.count("+DeviceAllow=") == 1, run.output


def test_python_comes_from_miniconda(host: Any, stack: dict[str, Any]) -> None:
    assert host.run("/opt/xpu/miniconda3/bin/conda --version").rc == 0
    version = stack["python"]["environments"]["bigdl-cpu"]["version"]
    engine = host.check_output("readlink -f /opt/xpu/engines/bigdl-cpu/bin/python")
    assert engine.startswith(f"/opt/xpu/python/{version}/")
    # Markers of unfinished work, and the installer, would remain after an interrupted run.
    assert host.run("ls /opt/xpu/*.installing /opt/xpu/python/*.installing /var/cache/xpu-miniconda.sh").stdout == ""


def test_the_engine_is_at_its_pinned_version_and_whole(host: Any) -> None:
    program = "import importlib.metadata as m; print(m.version('bigdl-llm'), m.version('transformers'))"
    assert host.check_output(f'/opt/xpu/engines/bigdl-cpu/bin/python -c "{program}"') == "2.4.0 4.31.0"


def test_the_model_was_made_low_bit_once(host: Any) -> None:
    config = host.check_output("cat /etc/xpuserve/config.json")
    assert '"sym_int8"' in config
    assert '"low_bit"' in config
    files = set(host.check_output("ls /var/lib/xpu/models/smollm2-135m-instruct-sym_int8").split())
    assert {"config.json", "model.safetensors"} <= files
    # Pickle can run code when it is read: the node has no such file.
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pth"))]
