"""What kernels, drivers and packages support is what the stacks' data and the known-bad combinations say.

A case is named after the row of the public sources that it comes from: family and driver, Ubuntu's kernels,
combinations that are known to be bad, and what the first stacks had wrong.
"""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.combination import HIGH, MEDIUM, REFUSE, WARN, Situation
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpu_ids import GPUS
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.known_bad import COMBINATIONS, found
from ansible_collections.xpu.fleet.plugins.module_utils.stack.checks import least_kernel
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import (
    StackError,
)
from ansible_collections.xpu.fleet.plugins.module_utils.stacks import (
    StackRequest,
    pinned_packages,
    resolve,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.stack_nodes import GA, NEWEST, STACKS, gpu, node

NOBLE, RESOLUTE = "Ubuntu 24.04", "Ubuntu 26.04"
PPA = "ppa.launchpadcontent.net/kobuk-team"


def refusal(found: Any, asked: StackRequest | None = None) -> str:
    """The operator's message about a node without a suitable stack."""
    with pytest.raises(StackError) as error:
        resolve(STACKS, found, asked or StackRequest())
    return str(error.value)


# ------------------------------------------------------------------------------------------ family and kernel driver


@pytest.mark.parametrize(
    ("devices", "kernel"),
    [
        pytest.param("5690 5691 5692 5693 5694 5696 5697 56b0 56b2", "6.2", id="arc-a-mobile"),
        pytest.param("56a0 56a1 56a2 56a5 56a6", "6.2", id="arc-a-desktop"),
        pytest.param("56b1 56b3", "6.2", id="arc-pro-a40-a50-a60"),
        pytest.param("56ba 56bb 56bc 56bd", "6.7", id="arc-a-embedded"),
        pytest.param("e20b e20c", "6.12", id="arc-b580-b570"),
        pytest.param("e212", "6.14", id="arc-pro-b50"),
        pytest.param("e211", "6.15", id="arc-pro-b60"),
        pytest.param("e222 e223", "6.17", id="arc-pro-b65-b70"),
        pytest.param("e202 e209 e20d e210 e216 e220 e221", "7.0", id="other-battlemage"),
    ],
)
def test_an_arc_card_needs_the_kernel_that_drives_it(devices: str, kernel: str) -> None:
    for device in devices.split():
        card = gpu(device)
        assert least_kernel(STACKS["native"], node(card, system="Ubuntu 23.10"), HIGH) == kernel, device
        stack = resolve(STACKS, node(card, system=NOBLE, kernel="7.0.0-31-generic"), StackRequest())
        assert (stack["name"], stack["driver"]["module"], stack["dkms"]) == ("native", "", False), device


def test_a_kernel_of_one_report_alone_is_a_warning() -> None:
    """Arc A750E and A580E: in Linux 7.0's list, not in Intel's table."""
    stack = resolve(STACKS, node(gpu("56be"), system=NOBLE), StackRequest())
    assert any("may need kernel 7.0" in warning for warning in stack["warnings"])


@pytest.mark.parametrize(("kernel", "refused"), [("6.8.0-50-generic", True), ("6.17.0-22-generic", False)])
def test_arc_a_on_xe(kernel: str, refused: bool) -> None:
    forced = node(gpu(driver="xe"), system=NOBLE, kernel=kernel)
    told = refusal(forced) if refused else " ".join(resolve(STACKS, forced, StackRequest())["warnings"])
    assert "xe.force_probe=" in told


def test_e215() -> None:
    assert "no kernel up to 7.0 drives it" in refusal(node(gpu("e215"), system=RESOLUTE, kernel=NEWEST))


@pytest.mark.parametrize("device", ["56c0", "56c1", "56c2", "0bd5", "0bd7", "0b69", "0bda", "0b6e", "0be5"])
def test_flex_and_max_are_driven_by_intels_modules_alone(device: str) -> None:
    card = gpu(device)
    assert f"not {card['family']}" in refusal(node(card, system=NOBLE), StackRequest(stack="native"))
    stack = resolve(STACKS, node(card, system=NOBLE), StackRequest())
    assert (stack["name"], stack["dkms"], stack["driver"]["module"]) == ("datacenter-2523", True, "i915")


# ---------------------------------------------------------------------------------------------------- Ubuntu's kernels


@pytest.mark.parametrize(
    ("device", "system", "kernel", "stack"),
    [
        pytest.param("56c0", "Ubuntu 22.04", GA, "datacenter-2523", id="22.04-flex-on-ga-5.15"),
        pytest.param("0bd5", "Ubuntu 22.04", GA, "datacenter-2523", id="22.04-max-on-ga-5.15"),
        pytest.param("56c0", NOBLE, "6.8.0-138-generic", "datacenter-2523", id="24.04-flex-on-ga-6.8"),
        pytest.param("0bda", NOBLE, "6.8.0-138-generic", "datacenter-2523", id="24.04-max-on-ga-6.8"),
        pytest.param("56a0", NOBLE, "6.8.0-44-generic", "native", id="24.04-arc-a-on-ga"),
        pytest.param("56a0", NOBLE, "6.17.0-22-generic", "native", id="24.04-arc-a-on-hwe"),
        pytest.param("e20b", NOBLE, "6.14.0-37-generic", "native", id="24.04-arc-b-on-hwe"),
        pytest.param("56a0", RESOLUTE, NEWEST, "native", id="26.04-arc-a"),
        pytest.param("e223", RESOLUTE, NEWEST, "native", id="26.04-arc-b"),
    ],
)
def test_a_kernel_of_ubuntu_is_taken(device: str, system: str, kernel: str, stack: str) -> None:
    chosen = resolve(STACKS, node(gpu(device), system=system, kernel=kernel), StackRequest())
    assert chosen["name"] == stack
    assert not chosen["kernel"]["release"] and not pinned_packages(chosen).keys() & {"linux-generic"}


@pytest.mark.parametrize(
    ("device", "system", "kernel", "said"),
    [
        pytest.param("56c0", RESOLUTE, NEWEST, "No stack fits", id="26.04-flex"),
    ],
)
def test_a_kernel_of_ubuntu_is_refused(device: str, system: str, kernel: str, said: str) -> None:
    assert said in refusal(node(gpu(device), system=system, kernel=kernel))


@pytest.mark.parametrize(
    ("device", "system", "kernel", "at_least", "metapackage"),
    [
        pytest.param("56a0", NOBLE, "6.8.0-31-generic", "6.8.0-44", "linux-generic", id="24.04-arc-a-on-an-older-ga"),
        pytest.param("e20b", NOBLE, "6.8.0-138-generic", "6.12", "linux-generic-hwe-24.04", id="24.04-arc-b-on-ga"),
        pytest.param("e211", NOBLE, "6.14.0-37-generic", "6.15", "linux-generic-hwe-24.04", id="24.04-b60-on-hwe-6.14"),
        pytest.param("56a0", RESOLUTE, "6.17.0-22-generic", "7.0", "linux-generic", id="26.04-below-openvinos-kernel"),
    ],
)
def test_a_kernel_of_ubuntu_that_is_too_old_is_upgraded(
    device: str, system: str, kernel: str, at_least: str, metapackage: str
) -> None:
    stack = resolve(STACKS, node(gpu(device, driver=""), system=system, kernel=kernel), StackRequest())
    assert (stack["kernel"]["at_least"], stack["kernel"]["change"]) == (at_least, True)
    assert pinned_packages(stack)[metapackage] == ""
    hosted = node(gpu(device, driver=""), system=system, kernel=kernel, container=True)
    unchangeable = resolve(STACKS, hosted, StackRequest())["kernel"]
    assert (unchangeable["at_least"], unchangeable["change"]) == ("", False)


@pytest.mark.parametrize(
    ("device", "system", "kernel", "span"),
    [
        pytest.param("56c0", "Ubuntu 22.04", "6.8.0-138-generic", ("5.15", "5.16"), id="22.04-flex-on-hwe"),
        pytest.param(
            "56c1", "Ubuntu 22.04", "5.19.0-50-generic", ("5.15", "5.16"), id="22.04-flex-140-on-an-older-hwe"
        ),
        pytest.param("0bd5", NOBLE, "6.14.0-37-generic", ("6.8", "6.9"), id="24.04-max-on-hwe"),
        pytest.param("0bda", NOBLE, "6.17.0-1005-oem", ("6.8", "6.9"), id="24.04-max-on-oem"),
        pytest.param("56c0", NOBLE, "7.0.0-31-generic", ("6.8", "6.9"), id="24.04-flex-on-the-newest-hwe"),
    ],
)
def test_a_kernel_of_ubuntu_that_is_too_new_is_changed_to_its_releases_own(
    device: str, system: str, kernel: str, span: tuple[str, str]
) -> None:
    release = system.split()[1]
    stack = resolve(STACKS, node(gpu(device, driver=""), system=system, kernel=kernel), StackRequest())
    found = stack["kernel"]
    assert (found["at_least"], found["before"], found["change"]) == (*span, True)
    assert f"linux-generic-hwe-{release}" in found["metapackages"]
    wanted = pinned_packages(stack)
    # Nothing named after the outgoing kernel is requested.
    assert wanted["linux-generic"] == "" and not [name for name in wanted if kernel in name or "{" in name]
    unchangeable = {"kernel": {"metapackage": ""}}
    told = refusal(node(gpu(device), system=system, kernel=kernel), StackRequest(overrides=unchangeable))
    assert f"older than {span[1]}" in told and kernel in told
    hosted = node(gpu(device, driver=""), system=system, kernel=kernel, container=True)
    assert "boot such a kernel first" in refusal(hosted, StackRequest(dkms="always"))


def test_a_node_without_a_gpu_takes_any_kernel_unless_told() -> None:
    assert resolve(STACKS, node(kernel="5.4.0-1-generic"), StackRequest())["kernel"]["at_least"] == ""
    told = {"kernel": {"at_least": "6.8", "metapackage": "linux-generic-hwe-22.04"}}
    assert resolve(STACKS, node(kernel="5.15.0-1-generic"), StackRequest(overrides=told))["kernel"]["change"] is True


# ---------------------------------------------------------------------------------------------------- known to be bad

SMALL: dict[str, Any] = {"memory_bar_bytes": 256 * 1024**2, "resizable_bar": False}
LARGE: dict[str, Any] = {"memory_bar_bytes": 16 * 1024**3, "resizable_bar": True}
RUNTIME = "intel-opencl-icd"


def bad(*gpus: dict[str, Any], kernel: str = "6.17.0-22-generic", stack: str = "", **packages: str) -> dict[str, str]:
    """The names of the known-bad combinations of a node, with what becomes of them."""
    versions = {name.replace("_", "-"): version for name, version in packages.items()}
    return {entry.name: entry.effect for entry in found(Situation(gpus, kernel, versions, stack))}


@pytest.mark.parametrize("kernel", ["6.8.0-38-generic", "6.8.0-41-generic", "6.6.30-060630-generic", "6.9.1-custom"])
def test_arc_a_and_kernels_that_hang_compute(kernel: str) -> None:
    assert bad(gpu(), kernel=kernel)["arc-a-compute-hang"] == REFUSE
    assert not bad(gpu("56c0"), kernel=kernel)


@pytest.mark.parametrize("kernel", ["6.8.0-36-generic", "6.8.0-44-generic", "6.8.0-138-generic", "6.10.0-1-generic"])
def test_arc_a_and_kernels_that_do_not(kernel: str) -> None:
    assert not bad(gpu(), kernel=kernel)


@pytest.mark.parametrize("version", ["25.18.33578.5-1", "25.18.33578.77-1146~24.04", "25.22.33944.8-1"])
def test_small_bar_and_runtime_25_18(version: str) -> None:
    assert bad(gpu(**SMALL), intel_opencl_icd=version)["small-bar-and-25.18"] == REFUSE
    assert not bad(gpu(**LARGE), intel_opencl_icd=version).keys() & {"small-bar-and-25.18"}
    assert "small-bar-and-25.18" not in bad(gpu(), intel_opencl_icd=version)  # its BAR is unknown


@pytest.mark.parametrize("version", ["25.13.33276.16-1", "25.27.34303.9-1~24.04~ppa1"])
def test_small_bar_and_a_runtime_that_takes_it(version: str) -> None:
    assert "small-bar-and-25.18" not in bad(gpu(**SMALL), libze_intel_gpu1=version)


def test_small_bar_and_lts_2523() -> None:
    card = gpu("56c0", **SMALL)
    told = refusal(node(card, system=NOBLE))
    assert "Resizable BAR" in told and "Above 4G Decoding" in told
    assert resolve(STACKS, node(gpu("56c0", **LARGE), system=NOBLE), StackRequest())["name"] == "datacenter-2523"
    on_the_cpu = resolve(STACKS, node(card, system=NOBLE), StackRequest(device="cpu"))
    assert any("Resizable BAR" in warning for warning in on_the_cpu["warnings"])


def test_small_bar_and_xe() -> None:
    assert "Resizable BAR" in refusal(node(gpu("e20b", **SMALL), system=RESOLUTE, kernel=NEWEST))
    assert (
        resolve(STACKS, node(gpu("e20b", **LARGE), system=RESOLUTE, kernel=NEWEST), StackRequest())["name"] == "native"
    )


@pytest.mark.parametrize("device", ["56a0", "5690"])
def test_a770_bound_to_xe_by_force_on_6_8(device: str) -> None:
    assert bad(gpu(device, driver="xe"), kernel="6.8.0-50-generic")["arc-a-on-xe-6.8"] == REFUSE
    assert not bad(gpu(device), kernel="6.8.0-50-generic")


def test_b70_and_runtime_26_27() -> None:
    assert bad(gpu("e223"), intel_opencl_icd="26.27.39122.12-1~26.04~ppa1") == {"b70-sycl-crash": WARN}
    assert not bad(gpu("e223"), intel_opencl_icd="26.22.38646.7-1")
    assert not bad(gpu("e20b"), kernel="6.17.0-22-generic", intel_opencl_icd="26.27.39122.12-1~24.04~ppa1")


def test_kernel_6_8_and_a_runtime_before_24_13() -> None:
    old = {"intel_opencl_icd": "23.17.26241.33-647~22.04"}
    assert bad(gpu(), kernel="6.8.0-50-generic", **old)["runtime-older-than-6.8"] == REFUSE
    assert bad(gpu(), kernel="6.8.0-50-generic", intel_opencl_icd="24.09.28717.12")["runtime-older-than-6.8"] == REFUSE
    assert not bad(gpu(), kernel="5.19.0-41-generic", **old)
    for fixed in ("23.43.27642.40-1ubuntu3", "24.13.29138.7"):
        assert "runtime-older-than-6.8" not in bad(gpu(), kernel="6.8.0-50-generic", intel_opencl_icd=fixed)


def test_packages_of_25_35_without_a_loader() -> None:
    alone = {"libze_intel_gpu1": "25.35.35096.9-1"}
    assert bad(gpu("56b1"), **alone)["25.35-without-loader"] == REFUSE
    assert "25.35-without-loader" not in bad(gpu("56b1"), **alone, libze1="1.24.1")


def test_xpu_smi_2_0_1() -> None:
    assert bad(gpu("e20b"), kernel=NEWEST, xpu_smi="2.0.1") == {"xpu-smi-2.0.1": WARN}
    assert not bad(gpu("e20b"), kernel=NEWEST, xpu_smi="2.0.2") and not bad(gpu("e212"), xpu_smi="2.0.1")


@pytest.mark.parametrize(
    ("version", "kernel", "name"),
    [
        ("1.24.3.23.240419.26+i30-1", "6.8.0-45-generic", "dkms-1.24.3.23-on-6.8.0-45"),
        ("1.24.6.12.240823.13+i14-1", "6.8.0-51-generic", "dkms-1.24.6.12-on-6.8.0-51"),
    ],
)
def test_dkms_packages_that_do_not_compile(version: str, kernel: str, name: str) -> None:
    assert bad(gpu("56c0"), kernel=kernel, intel_i915_dkms=version) == {name: REFUSE}
    assert not bad(gpu("56c0"), kernel="6.8.0-40-generic", intel_i915_dkms=version)
    assert not bad(gpu("56c0"), kernel=kernel, intel_i915_dkms="1.25.2.57.250224.65+i75-1")


@pytest.mark.parametrize(
    ("i915", "vsec", "fits"),
    [
        ("1.23.6.42.230425.56+i81-1", "2023.20.0-21", False),
        ("1.23.5.19.230406.21.5.17.0.1034+i38-1", "2023.20.0-21", True),
        ("1.23.5.19.230406.21.5.17.0.1034+i38-1", "2023.30.0-1", False),
    ],
)
def test_i915_dkms_with_vsec_of_another_release(i915: str, vsec: str, fits: bool) -> None:
    there = bad(gpu(), kernel="5.19.0-41-generic", intel_i915_dkms=i915, intel_platform_vsec_dkms=vsec)
    assert (not there) is fits


def test_arc_b_and_a_runtime_that_does_not_know_it() -> None:
    archive = {"intel_opencl_icd": "23.43.27642.40-1ubuntu3"}
    assert bad(gpu("e20b"), **archive)["runtime-without-battlemage"] == REFUSE
    assert not bad(gpu("e20b"), intel_opencl_icd="24.31.30508.5")
    assert "runtime-without-g31" in bad(gpu("e222"), intel_opencl_icd="25.18.33578.77")


def test_what_one_report_says_is_never_refused_and_every_row_has_its_source() -> None:
    for entry in COMBINATIONS:
        assert entry.source and entry.symptom and entry.remedy
        assert entry.confidence == HIGH or (entry.confidence == MEDIUM and entry.effect == WARN), entry.name
    assert len({entry.name for entry in COMBINATIONS}) == len(COMBINATIONS)
    devices = {device for entry in COMBINATIONS for device in entry.devices}
    assert devices <= {*GPUS, "arc", "arc-b", "flex", "max"}


# ------------------------------------------------------------------------------------- what the first stacks had wrong


def test_datacenter_682_has_one_dkms_package() -> None:
    assert [entry["package"] for entry in STACKS["datacenter-682"]["driver"]["dkms"]] == ["intel-i915-dkms"]


def test_datacenter_682_has_the_kernel_of_its_release() -> None:
    kernel = STACKS["datacenter-682"]["kernel"]
    assert kernel["release"] == "5.15.0-91-generic"
    assert set(kernel["packages"].values()) == {"5.15.0-91.101"}
    assert all(name.endswith(kernel["release"]) for name in kernel["packages"])


def test_datacenter_682_names_what_its_package_depends_on() -> None:
    assert {"dkms", "flex", "bison", "libc6-dev"} <= set(STACKS["datacenter-682"]["driver"]["build_tools"])


@pytest.mark.parametrize(("system", "suite"), [("Ubuntu 22.04", "jammy/lts/2523"), (NOBLE, "noble/lts/2523")])
def test_flex_and_max_have_a_stack_that_intel_supports(system: str, suite: str) -> None:
    kernel = GA if system == "Ubuntu 22.04" else "6.8.0-138-generic"
    graphics = resolve(STACKS, node(gpu("0bd5"), system=system, kernel=kernel), StackRequest())["repositories"][
        "graphics"
    ]
    assert (graphics["suites"], graphics["components"]) == ([suite], ["unified"])


def test_native_is_for_arc_alone() -> None:
    assert STACKS["native"]["families"] == ["arc", "arc-b"]


def test_arc_b_on_24_04_takes_the_ppa_and_on_26_04_does_not() -> None:
    noble = resolve(STACKS, node(gpu("e20b"), system=NOBLE, kernel="6.14.0-37-generic"), StackRequest())
    assert noble["kernel"]["metapackage"] == "linux-generic-hwe-24.04"
    assert PPA in noble["repositories"]["graphics"]["uris"][0]
    assert noble["repositories"]["graphics"]["suites"] == ["noble"]
    resolute = resolve(STACKS, node(gpu("e20b"), system=RESOLUTE, kernel=NEWEST), StackRequest())
    assert (resolute["repositories"], resolute["kernel"]["metapackage"]) == ({}, "linux-generic")


@pytest.mark.parametrize(("kernel", "enough"), [("6.8.0-41-generic", False), ("6.8.0-44-generic", True)])
def test_the_number_of_the_abi_is_compared(kernel: str, enough: bool) -> None:
    found = resolve(STACKS, node(gpu(), system=NOBLE, kernel=kernel), StackRequest())["kernel"]
    assert (found["at_least"], found["change"]) == ("6.8.0-44", not enough)


def test_the_lts_bundles_own_xpu_smi_is_taken() -> None:
    stack = resolve(STACKS, node(gpu("0bd5"), system=NOBLE), StackRequest())
    assert stack["driver"]["packages"]["xpu-smi"] == ""
    assert list(stack["repositories"]) == ["graphics"]


def test_the_driver_of_2523_is_that_which_people_run() -> None:
    packages = pinned_packages(
        resolve(STACKS, node(gpu("0bda"), system=NOBLE, kernel="6.8.0-138-generic"), StackRequest())
    )
    assert packages["intel-i915-dkms"] == "1.25.2.57.250224.65+i75-1"
    assert packages["libze-intel-gpu1"] == packages["intel-opencl-icd"] == "25.18.33578.77-1146~24.04"
    assert {"flex", "bison", "intel-fw-gpu", "linux-modules-extra-6.8.0-138-generic"} <= set(packages)
