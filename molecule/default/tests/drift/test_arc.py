"""Possible drift on the node of stack arc-647."""

from __future__ import annotations

from typing import Any

import pytest
from default.tests.drift.drifts import Drift, edited, endure

testinfra_hosts = ["ansible://arc"]

SOURCES = "/etc/apt/sources.list.d/intel-graphics.sources"
DRIFTS = {
    "sources-edited": Drift(f"sed -i s/^Components:.*/Components:\\ other/ {SOURCES}", "repository", SOURCES),
    "sources-removed": Drift(f"rm {SOURCES}", "repository", SOURCES),
    "key-replaced": Drift(
        # Not the rig's own key: that signs every repository of the tests.
        "cp /usr/share/keyrings/debian-archive-keyring.gpg $(sed -n 's/^Signed-By: //p' " + SOURCES + ")",
        "repository",
        "keys of",
    ),
    "apt-proxy": Drift("echo '# by hand' > /etc/apt/apt.conf.d/51xpu-fleet-proxy", "repository", "51xpu-fleet-proxy"),
    "package-removed": Drift("dpkg --purge --force-depends clinfo", "driver", "package clinfo"),
    "package-of-another-version": Drift(
        "DEBIAN_FRONTEND=noninteractive apt-get install -y -q --allow-change-held-packages"
        " intel-opencl-icd=$(apt-cache madison intel-opencl-icd | head -1 | cut -d'|' -f2 | tr -d ' ')"
        " && apt-mark hold intel-opencl-icd",
        "driver",
        "package intel-opencl-icd",
        frozenset({"service"}),
    ),
    "hold-removed": Drift("apt-mark unhold level-zero", "driver", "hold of level-zero"),
    "pins-edited": Drift(edited("/etc/apt/preferences.d/xpu-fleet-driver.pref"), "driver", "xpu-fleet-driver.pref"),
    "upgrades-unattended": Drift("rm /etc/apt/apt.conf.d/52xpu-fleet-driver", "driver", "52xpu-fleet-driver"),
    "module-unbuilt": Drift(
        "dkms unbuild $(dkms status | sed -n 's#^\\(intel-i915-dkms/[^,]*\\),.*#\\1#p' | head -1) --all",
        "driver",
        "DKMS module intel-i915-dkms",
    ),
    "module-for-every-kernel": Drift("rm /etc/dkms/intel-i915-dkms.conf", "driver", "/etc/dkms/intel-i915-dkms.conf"),
    "oneapi-hold-removed": Drift(
        "apt-mark unhold $(apt-mark showhold | grep intel-oneapi-mkl | head -1)", "oneapi", "hold of intel-oneapi-mkl"
    ),
    "oneapi-pins-removed": Drift("rm /etc/apt/preferences.d/xpu-fleet-oneapi.pref", "oneapi", "xpu-fleet-oneapi.pref"),
    "environment-edited": Drift(
        "sed -i s/^MKLROOT=.*/MKLROOT=elsewhere/ /etc/xpuserve/oneapi.env",
        "oneapi",
        "oneapi.env",
        frozenset({"service"}),
    ),
    "low-bit-lost": Drift("rm -r /var/lib/xpu/models/*-sym_int*", "model", "-sym_int8", frozenset({"service"})),
}


@pytest.mark.parametrize("case", DRIFTS)
def test_it_is_named_and_put_right_and_nothing_else_moves(case: str, host: Any, layers: Any, site: Any) -> None:
    endure(DRIFTS[case], host, layers, site)
