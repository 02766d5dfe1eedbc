"""A driver's packages are merged once, by side: those that have to fit the kernel, and the rest."""

from __future__ import annotations

from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.stack.packages import driver_packages

RESOLVED: dict[str, Any] = {
    "kernel": {"release": "5.19.0-41-generic", "packages": {"linux-headers-5.19.0-41-generic": "5.19.0-41.42"}},
    "driver": {
        "build_tools": ["gawk"],
        "dkms": [{"package": "intel-i915-dkms", "version": "1.2", "module": "i915"}],
        "firmware": {"intel-fw-gpu": "3"},
        "diagnostics": ["clinfo"],
        "packages": {"intel-opencl-icd": "4"},
    },
}


def test_what_fits_the_kernel_goes_with_its_modules() -> None:
    assert driver_packages(RESOLVED, True) == {
        "kernel": {
            "gawk": "",
            "linux-headers-5.19.0-41-generic": "5.19.0-41.42",
            "intel-i915-dkms": "1.2",
            "intel-fw-gpu": "3",
        },
        "user": {"clinfo": "", "intel-opencl-icd": "4"},
    }


def test_without_modules_the_firmware_is_the_users() -> None:
    assert driver_packages(RESOLVED, False) == {
        "kernel": {},
        "user": {"clinfo": "", "intel-fw-gpu": "3", "intel-opencl-icd": "4"},
    }


def test_headers_are_those_of_the_running_kernel_where_the_stack_names_none() -> None:
    built = driver_packages({**RESOLVED, "kernel": {"release": ""}}, True, "6.8.0-31-generic")["kernel"]
    assert built["linux-headers-6.8.0-31-generic"] == ""


def test_a_stack_without_a_driver_has_none() -> None:
    assert driver_packages({"driver": {}, "kernel": {}}, True, "6.1.0-50-amd64") == {"kernel": {}, "user": {}}
