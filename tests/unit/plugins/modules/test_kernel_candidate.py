"""The kernel of a metapackage is found, or the message says why none is suitable."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.boot.kernel_names import Span
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import Package
from ansible_collections.xpu.fleet.plugins.modules import kernel_candidate
from ansible_collections.xpu.fleet.plugins.modules.kernel_candidate import CandidateError, candidate, find
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

META = "linux-generic-hwe-24.04"
BROUGHT = [
    META,
    "linux-image-generic-hwe-24.04",
    "linux-image-6.17.0-22-generic",
    "linux-image-unsigned-6.20.0-1-generic",
    "linux-modules-6.17.0-22-generic",
    "linux-modules-extra-6.17.0-22-generic",
    "linux-headers-6.17.0-22-generic",
    "linux-hwe-6.17-headers-6.17.0-22",
    "linux-image-6.8.0-138-generic",
    "wireless-regdb",
]


def test_the_newest_kernel_that_is_signed_is_taken_with_its_packages() -> None:
    found = candidate(META, Span("6.12"), "6.8.0-31-generic", BROUGHT)
    assert (found["release"], found["running"]) == ("6.17.0-22-generic", False)
    assert found["packages"] == [
        "linux-headers-6.17.0-22-generic",
        "linux-hwe-6.17-headers-6.17.0-22",
        "linux-image-6.17.0-22-generic",
        "linux-modules-6.17.0-22-generic",
        "linux-modules-extra-6.17.0-22-generic",
    ]


@pytest.mark.parametrize(
    ("at_least", "brought", "said"),
    [
        ("7.0", BROUGHT, "only installs 6.17.0-22-generic"),
        ("6.12", [META, "wireless-regdb"], f"have no {META} with a kernel"),
        ("6.12", [], "the -updates suite"),
    ],
)
def test_what_brings_no_kernel_that_will_do_is_refused(at_least: str, brought: list[str], said: str) -> None:
    with pytest.raises(CandidateError, match=r"this node runs kernel 6\.8\.0-31-generic and needs") as error:
        candidate(META, Span(at_least), "6.8.0-31-generic", brought)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("span", "release", "does"),
    [
        (Span("6.8"), "6.8.0-31-generic", True),
        (Span("6.8.0-44"), "6.8.0-31-generic", False),
        (Span("6.8", "6.9"), "6.8.0-1015-aws", True),
        (Span("6.8", "6.9"), "6.14.0-37-generic", False),
        (Span("5.15", "5.16"), "5.15.0-141-lowlatency", True),
        (Span("5.15", "5.16"), "5.4.0-200-generic", False),
    ],
)
def test_a_range_has_kernels_of_any_flavour(span: Span, release: str, does: bool) -> None:
    assert span.has(release) is does


def test_a_kernel_that_is_too_new_is_told() -> None:
    with pytest.raises(
        CandidateError, match=r"needs 6\.8 or newer and older than 6\.9, and .* only installs 6\.17\.0-22-generic"
    ):
        candidate(META, Span("6.8", "6.9"), "6.14.0-37-generic", BROUGHT)


ARC_A = {"id": "8086:56a0", "family": "arc", "address": "0000:03:00.0", "driver": "i915"}


@pytest.mark.parametrize(
    ("release", "gpus", "stack", "said"),
    [
        ("6.8.0-40-generic", [ARC_A], "native", "arc-a-compute-hang"),
        ("6.8.0-44-generic", [ARC_A], "native", ""),
        ("6.8.0-40-generic", [{**ARC_A, "family": "flex", "id": "8086:56c0"}], "datacenter-2523", ""),
        ("6.8.0-40-generic", [ARC_A], "", ""),
    ],
)
def test_a_kernel_that_is_known_not_to_work_is_refused(
    release: str, gpus: list[dict[str, Any]], stack: str, said: str
) -> None:
    if not said:
        kernel_candidate.check(release, stack, gpus)
        return
    with pytest.raises(CandidateError, match=f"kernel {release} would be installed.*{said}"):
        kernel_candidate.check(release, stack, gpus)


def test_a_metapackage_that_somebody_holds_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    held = {META: Package(META, "6.8.0-31.31", held=True, status="installed")}
    monkeypatch.setattr(kernel_candidate, "installed_packages", lambda: held)
    with pytest.raises(CandidateError, match=f"apt-mark unhold {META}"):
        find({"at_least": "6.12", "before": "", "metapackage": META, "refresh": False, "proxy": ""}, "6.8.0-31-generic")


def test_a_running_kernel_that_is_new_enough_is_taken() -> None:
    found = run_module("kernel_candidate", at_least="2.6", metapackage=META)
    assert (found["release"], found["running"], found["packages"]) == (os.uname().release, True, [])


APT_CACHE = """#!/bin/sh
case "$*" in
  madison*) echo "linux-generic-hwe-24.04 | 99.17.0-22.22 | http://archive noble-updates/main amd64 Packages"; exit ;;
  depends*--recurse*linux-generic-hwe-24.04) ;;
  *) exit 1 ;;
esac
cat <<EOF
linux-generic-hwe-24.04
  Depends: linux-image-generic-hwe-24.04
linux-image-generic-hwe-24.04
  Depends: linux-image-99.17.0-22-generic
 |Depends: <linux-firmware-virtual>
<linux-firmware-virtual>
linux-image-99.17.0-22-generic
EOF
"""


def test_what_apt_says_is_read(tmp_path: Path) -> None:
    for name, text in {"apt-cache": APT_CACHE, "dpkg": "#!/bin/sh\necho amd64\n", "dpkg-query": "#!/bin/sh\n"}.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    found = run_module("kernel_candidate", path=str(tmp_path), at_least="99.1", metapackage=META, refresh=False)
    assert found["release"] == "99.17.0-22-generic"
    assert found["install"] == [f"{META}=99.17.0-22.22"]
