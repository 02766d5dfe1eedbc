"""The stack of a node is chosen, overridden and refused, with messages for the operator."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import (
    StackError,
    check_shape,
)
from ansible_collections.xpu.fleet.plugins.module_utils.stacks import (
    NodeFacts,
    StackRequest,
    pinned_packages,
    resolve,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.stack_nodes import GA, NEWEST, STACKS, VARS, gpu, node


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (node(gpu()), ("arc-647", "arc", "bigdl", "gpu")),
        (node(gpu("56c0", "flex"), kernel=GA), ("datacenter-2523", "flex", "openvino", "gpu")),
        (node(gpu("0bd5", "max"), kernel=GA), ("datacenter-2523", "max", "openvino", "gpu")),
        (node(gpu(), system="Ubuntu 24.04"), ("native", "arc", "openvino", "gpu")),
        (node(gpu("e20b", "arc-b"), system="Ubuntu 26.04", kernel=NEWEST), ("native", "arc-b", "openvino", "gpu")),
        (node(gpu("56c1", "flex"), system="Ubuntu 24.04"), ("datacenter-2523", "flex", "openvino", "gpu")),
        (node(), ("cpu", "none", "openvino", "cpu")),
        (node(system="Debian 12"), ("cpu", "none", "openvino", "cpu")),
    ],
)
def test_auto_chooses_by_gpus_and_distribution(found: NodeFacts, expected: tuple[str, str, str, str]) -> None:
    stack = resolve(STACKS, found, StackRequest())
    assert (stack["name"], stack["family"], stack["engine"], stack["device"]) == expected


@pytest.mark.parametrize(
    ("found", "asked", "said"),
    [
        (
            node(),
            StackRequest(stack="arc-6477"),
            ["'arc-6477'", "auto, arc-647, cpu, datacenter-2523, datacenter-682, native"],
        ),
        (
            node(gpu("e20b", "arc-b")),
            StackRequest(),
            ["8086:e20b", "Ubuntu 22.04", "arc-647", "datacenter-682", "native (it serves Ubuntu 24.04"],
        ),
        (
            node(gpu(), system="Debian 12"),
            StackRequest(),
            ["No stack fits", "Debian 12", "cpu (it supports nodes without GPUs)"],
        ),
        (node(gpu("56c0", "flex")), StackRequest(stack="arc-647"), ["8086:56c0", "not flex"]),
        (node(), StackRequest(stack="arc-647"), ["none was found"]),
        (
            node(gpu("0bd5", "max"), gpu("56c0", "flex", "0000:81:00.0"), system="Ubuntu 24.04"),
            StackRequest(),
            ["mixes GPU families"],
        ),
        (node(gpu(), secure_boot=True), StackRequest(), ["Secure Boot is on", "arc-647", "enroll the key"]),
        (node(gpu(), architecture="aarch64"), StackRequest(), ["aarch64"]),
        (
            node(gpu(), system="Ubuntu 24.04", kernel="6.5.0-14-generic"),
            StackRequest(overrides={"kernel": {"metapackage": ""}}),
            ["6.8.0-44", "6.5.0-14-generic", "boot such a kernel first"],
        ),
        (node(), StackRequest(engine="vllm"), ["'vllm'", "openvino"]),
        (node(), StackRequest(device="npu"), ["'npu'", "gpu or cpu"]),
        (node(), StackRequest(device="gpu"), ["uses no GPU"]),
        (node(gpu()), StackRequest(oneapi_components=["basekit", "daal"]), ["daal", "basekit, ccl, dnn, mpi, tbb"]),
        (node(), StackRequest(oneapi_components=["basekit"]), ["offers none"]),
        (node(), StackRequest(ppa=True), ["stack_ppa"]),
        (node(gpu()), StackRequest(dkms="sometimes"), ["'sometimes'"]),
        (
            node(gpu()),
            StackRequest(overrides={"repositories": {"graphics": {"uri": "http://mirror"}}}),
            ["xpu_stack_overrides.repositories.graphics.uri", "Did you mean uris?"],
        ),
        (
            node(gpu()),
            StackRequest(overrides={"driver": {"packages": {"level-zero": 1.11}}}),
            ["xpu_stack_overrides.driver.packages.level-zero", "must be a string, but is a number", "1.11"],
        ),
        (
            node(gpu()),
            StackRequest(overrides={"repositories": {"graphics": {"uris": "http://mirror"}}}),
            ["xpu_stack_overrides.repositories.graphics.uris must be a list"],
        ),
        (
            node(gpu()),
            StackRequest(overrides={"kernel": None}),
            ["xpu_stack_overrides.kernel must be a mapping, but is empty"],
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_message(found: NodeFacts, asked: StackRequest, said: list[str]) -> None:
    with pytest.raises(StackError) as error:
        resolve(STACKS, found, asked)
    for words in said:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("had", "said"),
    [
        ({"known": [gpu()]}, "had Intel arc (8086:56a0) at 0000:03:00.0"),
        ({"served": ["0000:03:00.0"]}, "had a GPU at 0000:03:00.0"),
        ({"served": ["0000:03:00.0"], "known": [gpu()]}, "had Intel arc (8086:56a0) at 0000:03:00.0, and"),
    ],
)
def test_a_node_whose_gpu_is_gone_does_not_become_one_without(had: dict[str, Any], said: str) -> None:
    with pytest.raises(StackError) as error:
        resolve(STACKS, node(**had), StackRequest())
    for words in (said, "now it has no GPU", "dmesg", "set xpu_stack to cpu"):
        assert words in str(error.value)
    named = resolve(STACKS, node(**had), StackRequest(stack="cpu"))
    assert (named["name"], named["lost"]) == ("cpu", [])


def test_a_gpu_that_is_gone_beside_others_is_missed() -> None:
    served = ["0000:03:00.0", "0000:07:00.0"]
    found = node(gpu(), served=served, known=[gpu(address="0000:09:00.0")])
    stack = resolve(STACKS, found, StackRequest())
    assert [card["address"] for card in stack["gpus"]] == ["0000:03:00.0"]
    assert stack["lost"] == [{"address": "0000:07:00.0", "id": ""}, {"address": "0000:09:00.0", "id": "8086:56a0"}]
    told = resolve(STACKS, found, StackRequest(lost_gpus=["0000:07:00.0"]))
    assert [card["address"] for card in told["lost"]] == ["0000:09:00.0"]


def test_that_the_last_gpu_is_gone_for_good_is_not_a_wish_for_the_cpu() -> None:
    with pytest.raises(StackError, match="set xpu_stack to cpu"):
        resolve(STACKS, node(known=[gpu()]), StackRequest(lost_gpus=["0000:03:00.0"]))


@pytest.mark.parametrize(
    ("found", "asked", "speed"),
    [
        (node(gpu()), StackRequest(), 13.75),
        (node(gpu("56c0", "flex"), kernel=GA), StackRequest(), 12.5),
        (node(gpu("0bd5", "max"), system="Ubuntu 24.04"), StackRequest(), 18.25),
        (node(gpu("e20b", "arc-b"), system="Ubuntu 26.04", kernel=NEWEST), StackRequest(), 0),
        (node(gpu()), StackRequest(device="cpu"), 0),
        (node(), StackRequest(), 0),
        (node(gpu()), StackRequest(overrides={"published_speed": {"arc": 40}}), 10),
    ],
)
def test_a_speed_is_suspicious_below_a_quarter_of_the_published_one(
    found: NodeFacts, asked: StackRequest, speed: float
) -> None:
    assert resolve(STACKS, found, asked)["least_speed"] == speed


@pytest.mark.parametrize(("value", "said"), [("40", "is a string ('40')"), (True, "is")])
def test_a_speed_is_a_number(value: object, said: str) -> None:
    with pytest.raises(StackError, match=r"published_speed\.arc must be a whole number, but") as error:
        resolve(STACKS, node(gpu()), StackRequest(overrides={"published_speed": {"arc": value}}))
    assert said in str(error.value)


def test_types_that_ansible_makes_of_its_own_are_named_as_people_do() -> None:
    class TaggedInt(int):
        pass

    with pytest.raises(StackError, match="must be a string, but is a number"):
        check_shape({"title": TaggedInt(3)}, "x")
    with pytest.raises(StackError, match="must be a string, but is a boolean"):
        check_shape({"title": True}, "x")


def test_secure_boot_does_not_matter_where_no_module_is_built() -> None:
    assert resolve(STACKS, node(gpu(), system="Ubuntu 24.04", secure_boot=True), StackRequest())["name"] == "native"
    host = node(gpu(), secure_boot=True, container=True, kernel="5.19.0-41-generic")
    assert resolve(STACKS, host, StackRequest())["dkms"] is False
    assert resolve(STACKS, node(gpu(), secure_boot=True), StackRequest(dkms="never"))["dkms"] is False


def test_overrides_are_laid_over_the_stack_key_by_key() -> None:
    overrides = {
        "repositories": {"graphics": {"uris": ["http://mirror/graphics"]}},
        "driver": {"packages": {"level-zero": "1.12"}},
    }
    stack = resolve(STACKS, node(gpu()), StackRequest(overrides=overrides))
    reference = STACKS["arc-647"]
    assert stack["repositories"]["graphics"] == {
        **reference["repositories"]["graphics"],
        "uris": ["http://mirror/graphics"],
    }
    assert stack["driver"]["packages"] == {**reference["driver"]["packages"], "level-zero": "1.12"}
    assert reference["driver"]["packages"]["level-zero"] != "1.12"


def test_the_environment_is_that_of_the_family() -> None:
    arc = resolve(STACKS, node(gpu()), StackRequest())["environment"]
    biggest = resolve(STACKS, node(gpu("0bd5", "max")), StackRequest(stack="datacenter-682"))["environment"]
    assert arc == {
        "SYCL_CACHE_PERSISTENT": "1",
        "USE_XETLA": "OFF",
        "SYCL_PI_LEVEL_ZERO_USE_IMMEDIATE_COMMANDLISTS": "1",
    }
    assert biggest["ENABLE_SDP_FUSION"] == "1"
    assert biggest["LD_PRELOAD"].endswith("libtcmalloc.so.4")
    assert "USE_XETLA" not in biggest


def test_the_python_environment_follows_engine_and_device() -> None:
    on_gpu = resolve(STACKS, node(gpu()), StackRequest())["python"]
    on_cpu = resolve(STACKS, node(gpu()), StackRequest(device="cpu"))["python"]
    assert (on_gpu["requirements"], on_gpu["version"]) == ("bigdl-gpu", "3.9")
    assert "intel-extension-for-pytorch==2.0.110+xpu" in on_gpu["unhashed"]
    assert (on_cpu["requirements"], on_cpu["version"], on_cpu["unhashed"]) == ("bigdl-cpu", "3.11", [])
    assert resolve(STACKS, node(), StackRequest())["python"]["requirements"] == "openvino"


def test_required_oneapi_comes_always_and_the_rest_by_choice() -> None:
    plain = resolve(STACKS, node(gpu()), StackRequest())["oneapi"]["packages"]
    more = resolve(STACKS, node(gpu()), StackRequest(oneapi_components=["basekit", "tbb"]))["oneapi"]["packages"]
    assert {"intel-oneapi-mkl", "intel-oneapi-compiler-dpcpp-cpp"} <= set(plain)
    assert "intel-basekit" not in plain
    assert set(more) - set(plain) == {"intel-basekit", "intel-oneapi-tbb", "intel-oneapi-tbb-devel"}


def test_the_packages_of_a_machine_are_those_of_all_layers_at_exact_versions() -> None:
    packages = pinned_packages(resolve(STACKS, node(gpu()), StackRequest()))
    reference = STACKS["arc-647"]
    assert packages["linux-image-5.19.0-41-generic"] == "5.19.0-41.42~22.04.1"
    for entry in reference["driver"]["dkms"]:
        assert packages[entry["package"]] == entry["version"]
    assert set(packages) >= {"dkms", "gawk", "libc6-dev", "hwinfo", "clinfo", "intel-fw-gpu", "intel-oneapi-mkl"}


def test_in_a_container_the_kernel_is_left_to_the_host() -> None:
    inside = pinned_packages(resolve(STACKS, node(gpu(), container=True, kernel="5.19.0-41-generic"), StackRequest()))
    building = pinned_packages(resolve(STACKS, node(gpu(), container=True), StackRequest(dkms="always")))
    assert not [name for name in inside if name.startswith("linux-") or name.endswith("dkms")]
    assert [name for name in building if name.startswith("linux-")] == ["linux-headers-5.19.0-41-generic"]
    assert "intel-i915-dkms" in building


def test_the_ppa_is_offered_and_off() -> None:
    noble = node(gpu(), system="Ubuntu 24.04")
    assert resolve(STACKS, noble, StackRequest())["repositories"] == {}
    graphics = resolve(STACKS, noble, StackRequest(ppa=True))["repositories"]["graphics"]
    assert graphics["suites"] == ["noble"]


@pytest.mark.parametrize("name", sorted(STACKS))
def test_the_data_of_every_stack_has_the_shape(name: str) -> None:
    check_shape(STACKS[name], name)
    required = {"title", "families", "distributions", "engines", "repositories", "kernel", "driver", "oneapi", "python"}
    assert required <= set(STACKS[name])


def test_the_two_reference_stacks_share_what_they_have_in_common() -> None:
    arc, data_center = STACKS["arc-647"], STACKS["datacenter-682"]
    assert arc["python"] == data_center["python"]
    assert arc["oneapi"] == data_center["oneapi"]


@pytest.mark.parametrize("name", sorted(STACKS))
def test_every_python_environment_has_its_requirements_file(name: str) -> None:
    for environment in STACKS[name]["python"]["environments"]:
        assert (VARS / "requirements" / f"{environment}.txt").is_file()


def uncovered(name: str, device: str, address: str = "0000:03:00.0") -> dict[str, Any]:
    return {"name": name, "id": f"8086:{device}", "address": address, "family": "other"}


@pytest.mark.parametrize(
    "card",
    [
        uncovered("Intel Iris Xe MAX Graphics", "4905"),
        uncovered("Intel Server GPU SG-18M", "4907", "0000:83:00.0"),
        uncovered("Intel Data Center GPU (Crescent Island)", "674c"),
    ],
)
def test_a_card_that_no_stack_is_made_for_is_named_before_the_cpu_serves(card: dict[str, Any]) -> None:
    with pytest.raises(StackError, match="No stack supports") as error:
        resolve(STACKS, node(system="Ubuntu 24.04", uncovered=[card]), StackRequest())
    for words in (card["name"], card["id"], card["address"], "set xpu_stack to cpu"):
        assert words in str(error.value)
    told = resolve(STACKS, node(system="Ubuntu 24.04", uncovered=[card]), StackRequest(stack="cpu"))
    assert (told["name"], told["warnings"]) == ("cpu", [])


def test_a_card_that_no_stack_is_made_for_is_named_beside_one_that_serves() -> None:
    found = node(
        gpu(), system="Ubuntu 24.04", uncovered=[uncovered("Intel Iris Xe MAX Graphics", "4905", "0000:07:00.0")]
    )
    stack = resolve(STACKS, found, StackRequest())
    assert stack["name"] == "native"
    assert any("8086:4905" in warning and "do not use such a card" in warning for warning in stack["warnings"])


HANG = node(gpu(), system="Ubuntu 24.04", kernel="6.8.5-custom")


@pytest.mark.parametrize(
    ("found", "name", "overrides"),
    [
        (HANG, "arc-a-compute-hang", {"minimum_kernels": []}),
        (node(gpu(driver="xe"), system="Ubuntu 24.04"), "arc-a-on-xe-6.8", {}),
        (
            node(gpu("e20b", memory_bar_bytes=2**28, resizable_bar=False), system="Ubuntu 26.04", kernel=NEWEST),
            *("small-bar-on-xe", {}),
        ),
    ],
)
def test_an_operator_can_take_the_risk_of_a_combination_by_its_name(
    found: NodeFacts, name: str, overrides: dict[str, Any]
) -> None:
    with pytest.raises(StackError, match=f"xpu_known_bad_accepted: .{name}. overrides this refusal"):
        resolve(STACKS, found, StackRequest(overrides=overrides))
    with pytest.raises(StackError, match=name):
        resolve(STACKS, found, StackRequest(overrides=overrides, known_bad_accepted=["b70-memset"]))
    stack = resolve(STACKS, found, StackRequest(overrides=overrides, known_bad_accepted=[name]))
    assert any(f"; {name})" in warning for warning in stack["warnings"])


@pytest.mark.parametrize(
    ("name", "hint"), [("arc-a-hang", "did you mean arc-a-compute-hang"), ("all", "known names: 25.35-")]
)
def test_a_combination_that_nobody_knows_cannot_be_accepted(name: str, hint: str) -> None:
    with pytest.raises(StackError, match=f"xpu_known_bad_accepted has '{name}'.*{hint}"):
        resolve(STACKS, node(gpu()), StackRequest(known_bad_accepted=[name]))
