"""Cards for which a stack uses another repository: Arc B on Ubuntu 24.04, and Flex."""

from __future__ import annotations

from typing import Any

import pytest

testinfra_hosts = ["ansible://arcb", "ansible://flex"]

#: Source of the compute runtime, and a part of its version.
RUNTIME = {"arcb": ("kobuk-team/intel-graphics", "noble", "ppa1"), "flex": ("gpu/ubuntu", "noble/lts/2523", "-1146")}


@pytest.fixture
def place(node: str) -> tuple[str, str, str]:
    """Path, suite and a part of the version."""
    return RUNTIME[node]


def test_the_compute_runtime_is_that_of_the_cards_repository(host: Any, place: tuple[str, str, str]) -> None:
    path, suite, mark = place
    sources = host.file("/etc/apt/sources.list.d/intel-graphics.sources").content_string
    assert path in sources and f"Suites: {suite}\n" in sources
    for package in ("intel-opencl-icd", "libze-intel-gpu1"):
        assert mark in host.package(package).version


def test_no_kernel_module_is_built_for_the_hosts_kernel(host: Any) -> None:
    assert not host.package("intel-i915-dkms").is_installed
    assert not host.package("dkms").is_installed


def test_the_node_is_in_order(audited: Any) -> None:
    said, layers = audited()
    assert said.status == 0, said.output
    assert layers["driver"]["notes"] == []
