"""Newer kernels are removed, and nothing else that matters; apt simulates it first."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.boot.kernel_names import (
    abi_of,
    belongs,
    is_metapackage,
    is_newer,
    objections,
    release_of,
    superfluous,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import (
    Simulation,
    simulated,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (
    Version,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

WANTED = "5.19.0-41-generic"
NEWER = "6.1.0-50-cloud-amd64"

VERSIONS = [
    "0",
    "1.0",
    "1.0-1",
    "1.0-1~22.04.1",
    "1.0~rc1-1",
    "1.0a-1",
    "1.0+b1-1",
    "1:0.1-1",
    "1.00-1",
    "1.10-1",
    "1.9-1",
    "5.19.0-41-generic",
    "5.19.0-41.42~22.04.1",
    "5.19.0-5",
    "6.1.0-50-cloud-amd64",
    "6.1.0-50",
    "6.1.0-9",
    "6.12.41+deb13",
    "6.12.41+deb13-amd64",
    "6.12.5",
]


def test_versions_are_in_dpkgs_order() -> None:
    for one, other in itertools.combinations(VERSIONS, 2):
        operator = "lt" if Version(one) < Version(other) else "eq" if Version(one) == Version(other) else "gt"
        dpkg = subprocess.run(["dpkg", "--compare-versions", one, operator, other], check=False)
        assert dpkg.returncode == 0, (one, operator, other)


@pytest.mark.parametrize(
    ("package", "release"),
    [
        ("linux-image-5.19.0-41-generic", WANTED),
        ("linux-image-unsigned-5.19.0-41-generic", WANTED),
        ("linux-headers-5.19.0-41-generic", WANTED),
        ("linux-headers-5.19.0-41", "5.19.0-41"),
        ("linux-hwe-5.19-headers-5.19.0-41", "5.19.0-41"),
        ("linux-modules-5.19.0-41-generic", WANTED),
        ("linux-modules-extra-5.19.0-41-generic", WANTED),
        ("linux-modules-iwlwifi-5.19.0-41-generic", WANTED),
        ("linux-modules-nvidia-535-5.19.0-41-generic", WANTED),
        ("linux-modules-nvidia-535-server-open-5.19.0-41-generic", WANTED),
        ("linux-tools-5.19.0-41-generic", WANTED),
        ("linux-cloud-tools-5.19.0-41-generic", WANTED),
        ("linux-image-6.1.0-50-cloud-amd64", NEWER),
        ("linux-image-6.1.0-50-cloud-amd64-unsigned", NEWER),
        ("linux-image-6.1.0-50-cloud-amd64-dbg", NEWER),
        ("linux-headers-6.1.0-50-common", "6.1.0-50-common"),
        ("linux-headers-6.12.41+deb13-amd64", "6.12.41+deb13-amd64"),
        ("linux-image-6.8.0-1015-oem", "6.8.0-1015-oem"),
        ("linux-oem-6.5-headers-6.5.0-1019", "6.5.0-1019"),
        ("linux-oem-6.5-lib-rust-6.5.0-1019-oem", "6.5.0-1019-oem"),
        ("linux-modules-ipu6-6.5.0-1019-oem", "6.5.0-1019-oem"),
        ("linux-lowlatency-headers-6.8.0-45", "6.8.0-45"),
        ("linux-lowlatency-hwe-6.5-headers-6.5.0-17", "6.5.0-17"),
        ("linux-lowlatency-hwe-6.8-cloud-tools-6.8.0-45", "6.8.0-45"),
        ("linux-hwe-edge-5.19-headers-5.19.0-20", "5.19.0-20"),
        ("linux-intel-iotg-headers-5.15.0-1030", "5.15.0-1030"),
        ("linux-intel-iotg-5.15-tools-5.15.0-1030", "5.15.0-1030"),
        ("linux-nvidia-6.5-headers-6.5.0-1014", "6.5.0-1014"),
        ("linux-aws-6.5-headers-6.5.0-1014", "6.5.0-1014"),
        ("linux-azure-6.5-cloud-tools-6.5.0-1010", "6.5.0-1010"),
        ("linux-gcp-headers-6.8.0-1010", "6.8.0-1010"),
        ("linux-image-6.6.0", "6.6.0"),
        ("linux-headers-6.8.7-060807", "6.8.7-060807"),
        ("linux-image-generic-hwe-22.04", ""),
        ("linux-oem-22.04c", ""),
        ("linux-oem-6.5-tools-host", ""),
        ("linux-headers-generic", ""),
        ("linux-image-cloud-amd64", ""),
        ("linux-kbuild-6.1", ""),
        ("linux-libc-dev", ""),
        ("linux-firmware", ""),
        ("linux-base", ""),
        ("linux-tools-common", ""),
        ("linux-source-6.1", ""),
        ("linux-perf", ""),
        ("libreoffice-5.19.0-41", ""),
    ],
)
def test_packages_are_told_by_their_names(package: str, release: str) -> None:
    assert release_of(package) == release


@pytest.mark.parametrize(
    ("package", "follows"),
    [
        ("linux-generic", True),
        ("linux-headers-generic-hwe-22.04-edge", True),
        ("linux-image-virtual-hwe-22.04", True),
        ("linux-image-extra-virtual", True),
        ("linux-lowlatency-hwe-22.04", True),
        ("linux-image-oem-22.04c", True),
        ("linux-modules-ipu6-oem-22.04c", True),
        ("linux-modules-nvidia-535-generic-hwe-22.04", True),
        ("linux-nvidia-6.5", True),
        ("linux-aws-lts-22.04", True),
        ("linux-image-cloud-amd64", True),
        ("linux-image-6.5.0-1019-oem", False),
        ("linux-oem-6.5-headers-6.5.0-1019", False),
        ("linux-firmware", False),
        ("linux-firmware-raspi", False),
        ("linux-tools-common", False),
        ("linux-libc-dev", False),
        ("linux-base", False),
        ("linux-perf", False),
        ("libgeneric", False),
    ],
)
def test_metapackages_are_told_by_their_names(package: str, follows: bool) -> None:
    assert is_metapackage(package) is follows


def test_packages_that_kernels_share_belong_to_each() -> None:
    assert abi_of(NEWER) == "6.1.0-50" and abi_of("6.12.41+deb13-amd64") == "6.12.41+deb13"
    assert belongs("linux-headers-6.1.0-50-common", NEWER) and belongs("linux-headers-5.19.0-41", WANTED)
    assert belongs("linux-image-5.19.0-41-generic", WANTED)
    assert not belongs("linux-image-5.19.0-41-lowlatency", WANTED)
    assert not belongs("linux-headers-5.19.0-4", WANTED) and not belongs("linux-headers-5.19.0-41", "5.19.0-4-generic")


def test_releases_compare_by_their_numbers_and_not_by_their_flavours() -> None:
    assert is_newer(NEWER, WANTED) and not is_newer(WANTED, NEWER)
    assert is_newer("5.19.0-100-generic", WANTED) and is_newer("6.10.1-1-amd64", "6.9.1-1-amd64")
    assert not is_newer("5.19.0-41-lowlatency", WANTED) and not is_newer("6.1.0-50-common", NEWER)


INSTALLED = [
    "linux-image-5.15.0-91-generic",
    "linux-image-5.19.0-41-generic",
    "linux-headers-5.19.0-41",
    "linux-image-6.1.0-50-cloud-amd64",
    "linux-headers-6.1.0-50-cloud-amd64",
    "linux-headers-6.1.0-50-common",
    "linux-generic-hwe-22.04",
    "linux-firmware",
]


def test_newer_kernels_and_metapackages_go() -> None:
    metas = ["linux-generic-hwe-22.04", "linux-image-generic-hwe-22.04"]
    assert superfluous(INSTALLED, WANTED, metas, [WANTED]) == [
        "linux-generic-hwe-22.04",
        "linux-headers-6.1.0-50-cloud-amd64",
        "linux-headers-6.1.0-50-common",
        "linux-image-6.1.0-50-cloud-amd64",
    ]
    assert superfluous(INSTALLED, WANTED, [], [NEWER]) == []
    assert superfluous(INSTALLED, NEWER, [], []) == []


SIMULATED = """\
Reading package lists...
The following packages will be REMOVED:
  libfoo* linux-image-6.1.0-50-cloud-amd64*
Purg linux-generic-hwe-22.04 [5.19.0.42]
Remv linux-image-6.1.0-50-cloud-amd64 [6.1.1-1] [other:amd64 ]
Purg linux-image-6.1.0-50-cloud-amd64 [6.1.1-1]
Inst linux-image-unsigned-6.1.0-50-cloud-amd64 (6.1.1-1 Debian:12/stable [amd64])
Conf linux-image-unsigned-6.1.0-50-cloud-amd64 (6.1.1-1 Debian:12/stable [amd64])
"""


def test_a_simulation_is_read() -> None:
    assert simulated(SIMULATED) == Simulation(
        ("linux-generic-hwe-22.04", "linux-image-6.1.0-50-cloud-amd64"),
        ("linux-image-unsigned-6.1.0-50-cloud-amd64",),
    )


@pytest.mark.parametrize(
    ("removed", "installed", "objection"),
    [
        (["wanted", "automatic"], [], ""),
        (["linux-image-5.19.0-41-generic"], [], "linux-image-5.19.0-41-generic of kernel 5.19.0-41-generic would go"),
        (["linux-headers-5.19.0-41"], [], "of kernel 5.19.0-41-generic would go"),
        (["wanted", "held"], [], "held, which is held, would go"),
        (["wanted", "by-hand"], [], "by-hand, which was installed by hand, would go along"),
        (["wanted", "linux-oem-22.04c", "linux-headers-oem-22.04c"], [], ""),
        (["wanted"], ["other"], "other would be installed"),
    ],
)
def test_what_must_not_go_is_refused(removed: list[str], installed: list[str], objection: str) -> None:
    simulation = Simulation(tuple(removed), tuple(installed))
    automatic = ["automatic", "held", "linux-headers-5.19.0-41"]
    found = objections(simulation, ["wanted"], [WANTED], ["held"], automatic)
    assert found == [] if not objection else objection in found[0]


# ---------------------------------------------------------------------------------------- the module, with a stand-in

DPKG = """#!/bin/sh
case "$1" in
  --print-architecture) echo amd64 ;;
  -W) cat {state} ;;
  --audit) [ -z "$UNFINISHED" ] || printf 'unpacked but not yet configured:\\n half a package\\n' ;;
esac
"""
APT = """#!/bin/sh
[ -z "$FAIL" ] || {{ echo "Reading..."; echo "E: Could not get lock" >&2; exit 100; }}
echo "$*" >>{log}
case " $* " in *" --simulate "*) simulate=1;; esac
for word; do case "$word" in
  linux-*) names="$names $word" ;;
esac; done
case " $* " in *AutomaticRemove=true*) names="$names $(cat {auto})" ;; esac
for name in $names; do
  if [ "$simulate" ]; then
    echo "Purg $name [1]"
  else
    grep -v "^$name	" {state} >{state}.new
    mv {state}.new {state}
  fi
done
"""


class Apt:
    """Stands for dpkg and apt, which would remove packages of this machine."""

    def __init__(self, directory: Path) -> None:
        self.path, self.state, self.log, self.auto = (
            str(directory),
            directory / "state",
            directory / "log",
            directory / "auto",
        )
        self.auto.write_text("libauto\n")
        self.install(dict.fromkeys([*INSTALLED, "libauto"], "install"))
        for name, script in (
            ("dpkg", DPKG),
            ("dpkg-query", DPKG),
            ("apt-get", APT),
            ("apt-mark", "#!/bin/sh\ncat {auto}\n"),
        ):
            command = directory / name
            command.write_text(script.format(state=self.state, log=self.log, auto=self.auto))
            command.chmod(0o755)

    def install(self, packages: dict[str, str]) -> None:
        rows = [f"{name}\tamd64\t{want}\tinstalled\t1\n" for name, want in packages.items()]
        gone = "linux-image-6.5.0-1-generic\tamd64\tdeinstall\tconfig-files\t1\n"
        self.state.write_text(
            "".join(rows) + gone + "linux-image-6.1.0-50-cloud-amd64\ti386\tinstall\tnot-installed\t\n"
        )

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def apt(tmp_path: Path) -> Apt:
    return Apt(tmp_path)


GOING = [
    "libauto",
    "linux-generic-hwe-22.04",
    "linux-headers-6.1.0-50-cloud-amd64",
    "linux-headers-6.1.0-50-common",
    "linux-image-6.1.0-50-cloud-amd64",
]
METAS = ["linux-generic-hwe-22.04", "linux-headers-generic-hwe-22.04"]


def test_kernels_are_purged_in_one_transaction_and_once(apt: Apt) -> None:
    foreseen = run_module("kernel_purge", check=True, path=apt.path, newer_than=WANTED, metapackages=METAS)
    assert foreseen["changed"] and foreseen["packages"] == GOING and foreseen["releases"] == [NEWER]
    assert all("--simulate" in call for call in apt.calls())
    done = run_module("kernel_purge", path=apt.path, newer_than=WANTED, metapackages=METAS)
    assert {name: done[name] for name in ("changed", "packages", "releases", "diff")} == {
        name: foreseen[name] for name in ("changed", "packages", "releases", "diff")
    }
    call = apt.calls()[-1]
    assert "DPkg::Lock::Timeout=600" in call and " purge " in call and "libauto" not in call
    assert "--allow-change-held-packages" not in call
    again = run_module("kernel_purge", path=apt.path, newer_than=WANTED, metapackages=METAS)
    assert not again["changed"] and again["packages"] == []


def test_without_autoremove_nothing_goes_along(apt: Apt) -> None:
    done = run_module("kernel_purge", path=apt.path, newer_than=WANTED, autoremove=False)
    assert done["packages"] == GOING[2:]


def test_a_held_metapackage_goes_and_a_held_kernel_does_not(apt: Apt) -> None:
    apt.install({**dict.fromkeys([*INSTALLED, "libauto"], "install"), "linux-generic-hwe-22.04": "hold"})
    done = run_module("kernel_purge", path=apt.path, newer_than=WANTED, metapackages=METAS)
    assert done["packages"] == GOING and "--allow-change-held-packages" in apt.calls()[-1]
    apt.install({**dict.fromkeys(INSTALLED, "install"), "linux-image-6.1.0-50-cloud-amd64": "hold"})
    refused = run_module("kernel_purge", path=apt.path, newer_than=WANTED, metapackages=METAS)
    assert refused["failed"] and "linux-image-6.1.0-50-cloud-amd64, which is held, would go" in refused["msg"]
    assert "--simulate" in apt.calls()[-1]


def test_a_kernel_that_this_collection_held_goes(apt: Apt, tmp_path: Path) -> None:
    image, headers = "linux-image-6.1.0-50-cloud-amd64", "linux-headers-6.1.0-50-cloud-amd64"
    apt.install({**dict.fromkeys([*INSTALLED, "libauto"], "install"), image: "hold", "libauto": "hold"})
    pins = tmp_path / "root/etc/apt/preferences.d/xpu-fleet-kernel.pref"
    pins.parent.mkdir(parents=True)
    arguments: dict[str, Any] = {"at": tmp_path / "root", "newer_than": WANTED, "metapackages": METAS}
    pins.write_text(f"# managed\n\nPackage: {headers}\nPin: version 1\n\nPackage: libauto\nPin: version 1\n")
    refused = run_module("kernel_purge", check=True, path=apt.path, **arguments)
    assert f"{image}, which is held, would go" in refused["msg"]
    pins.write_text(pins.read_text() + f"\nPackage: {image}\nPin: version 1\nPin-Priority: 1001\n")
    refused = run_module("kernel_purge", check=True, path=apt.path, **arguments)
    assert "are not removed: libauto, which is held, would go. " in refused["msg"]  # that is no kernel's package
    apt.install({**dict.fromkeys([*INSTALLED, "libauto"], "install"), image: "hold"})
    done = run_module("kernel_purge", path=apt.path, **arguments)
    assert done["packages"] == GOING and "--allow-change-held-packages" in apt.calls()[-1]


@pytest.mark.parametrize("along", ["linux-image-5.19.0-41-generic", "linux-image-{running}"])
def test_the_wanted_and_the_running_kernel_never_go_along(apt: Apt, along: str) -> None:
    name = along.format(running=os.uname().release)
    if not release_of(name):
        name = "linux-headers-5.19.0-41"  # this machine's kernel has another kind of name
    apt.auto.write_text(f"{name}\n")
    refused = run_module("kernel_purge", path=apt.path, newer_than=WANTED, metapackages=METAS)
    assert refused["failed"] and f"{name} of kernel" in refused["msg"]
    assert all("--simulate" in call for call in apt.calls())


def test_kernels_to_keep_stay(apt: Apt) -> None:
    done = run_module("kernel_purge", path=apt.path, newer_than=WANTED, keep=[NEWER])
    assert not done["changed"]


def test_another_running_kernel_can_be_pretended_in_check_mode_only(apt: Apt) -> None:
    arguments: dict[str, Any] = {"newer_than": WANTED, "running": NEWER}
    assert not run_module("kernel_purge", check=True, path=apt.path, **arguments)["changed"]
    assert "set only in check mode" in run_module("kernel_purge", path=apt.path, **arguments)["msg"]


def test_a_plan_is_made_on_top_of_half_an_installation(apt: Apt, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, Any] = {"newer_than": WANTED, "metapackages": METAS}
    monkeypatch.setenv("FAIL", "1")
    monkeypatch.setenv("UNFINISHED", "1")
    foreseen = run_module("kernel_purge", check=True, path=apt.path, **arguments)
    assert foreseen["changed"] and foreseen["packages"] == GOING[1:] and foreseen["releases"] == [NEWER]
    assert "Could not get lock" in run_module("kernel_purge", path=apt.path, **arguments)["msg"]
    # What apt does answer is believed, as long as there is nothing against it.
    monkeypatch.delenv("FAIL")
    assert run_module("kernel_purge", check=True, path=apt.path, **arguments)["packages"] == GOING
    apt.auto.write_text("linux-image-5.19.0-41-generic\n")
    assert run_module("kernel_purge", check=True, path=apt.path, **arguments)["packages"] == GOING[1:]
    assert "would go" in run_module("kernel_purge", path=apt.path, **arguments)["msg"]
    monkeypatch.delenv("UNFINISHED")
    assert "would go" in run_module("kernel_purge", check=True, path=apt.path, **arguments)["msg"]


def test_what_apt_says_is_in_the_error(apt: Apt, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "1")
    failed = run_module("kernel_purge", path=apt.path, newer_than=WANTED)
    assert failed["failed"] and failed["msg"].endswith("failed with status 100: E: Could not get lock")


LINES = {
    line: [f"linux-image-{release}", f"linux-headers-{release}"]
    for line, release in {
        "ga": "6.8.0-31-generic",
        "later": "6.8.0-138-generic",
        "hwe": "6.17.0-22-generic",
        "edge": "6.9.0-1-generic",
        "oem": "6.11.0-1005-oem",
    }.items()
}


@pytest.mark.parametrize(
    ("there", "end", "gone"),
    [
        ("ga later hwe", "6.9", "hwe"),
        ("ga edge oem", "6.9", "edge oem"),
        ("ga later", "6.9", ""),
        ("ga later hwe", "6.8.0-138", "later hwe"),
        ("later hwe edge oem", "6.11", "hwe oem"),
    ],
)
def test_of_a_range_what_is_past_its_end_goes(there: str, end: str, gone: str) -> None:
    """A later kernel of the same line stays, whichever of them runs."""
    installed = ["linux-generic", *(name for line in there.split() for name in LINES[line])]
    expected = sorted(name for line in gone.split() for name in LINES[line])
    assert superfluous(installed, f"{end}~", ["linux-generic-hwe-24.04"], ["6.8.0-31-generic"]) == expected
