"""An interrupted installation is finished, and no intact package is removed for that."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (
    incomplete,
    without_lists,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import complaints
from ansible_collections.xpu.fleet.plugins.modules.dpkg_repair import module_advice

COLLECTIONS = Path(__file__).resolve().parents[4] / "collections"
AUDIT = """\
The following packages have been unpacked but not yet configured.
They must be configured using dpkg --configure or the configure
menu option in dselect for them to work:
 half                 a package
 other                another one

The following packages are missing the md5sums control file in the
database, they need to be reinstalled:
 without-sums         a package whose maker wrote none

The following packages are missing the list control file in the
database, they need to be reinstalled:
 lost                 a package
"""
COMMANDS = {
    "dpkg": """case "$1" in
  --print-architecture) echo amd64 ;;
  --audit) [ ! -e {at}/audit ] || {{ cat {at}/audit; exit 1; }} ;;
  *) [ ! -e {at}/unconfigurable ] || {{ echo 'dpkg: error processing package half' >&2; exit 1; }}
     rm -f {at}/audit {at}/root/var/lib/dpkg/updates/* ;;
esac""",
    "depmod": "",
    "dpkg-query": """[ ! -e {at}/kernels ] || cat {at}/kernels
printf 'half\\tamd64\\tinstall\\tunpacked\\t1\\nwhole\\tamd64\\tinstall\\tinstalled\\t1\\n'""",
    "apt-get": """case " $* " in
  *" check "*) [ ! -e {at}/unmet ] || {{ echo 'E: Unmet dependencies.' >&2; exit 100; }} ;;
  *" --simulate "*) [ ! -e {at}/removes ] || echo "Remv $(cat {at}/removes) [1]" ;;
  *) [ ! -e {at}/failing ] || {{ echo 'E: Unable to fetch some archives' >&2; exit 100; }}
     [ -e {at}/stuck ] || rm -f {at}/unmet {at}/audit ;;
esac""",
}


class Node:
    """A state of dpkg, with stand-ins for the commands that repair it."""

    def __init__(self, directory: Path) -> None:
        self.at, self.root, self.log = directory, directory / "root", directory / "log"
        self.updates = self.root / "var/lib/dpkg/updates"
        self.updates.mkdir(parents=True)
        self.lock = self.root / "var/lib/dpkg/lock-frontend"
        self.lock.touch()
        for name, script in COMMANDS.items():
            command = directory / "commands" / name
            command.parent.mkdir(exist_ok=True)
            command.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\n{script.format(at=directory)}\n')
            command.chmod(0o755)

    def set(self, name: str, text: str = "") -> None:
        (self.at / name).write_text(text)

    def run(self, check: bool = False, lock_timeout: int = 600) -> dict[str, Any]:
        self.log.write_text("")
        code = (
            "from pathlib import Path; from ansible_collections.xpu.fleet.plugins.modules import dpkg_repair as m; "
            f"m.ROOT = Path({str(self.root)!r}); m.main()"
        )
        arguments = {"_ansible_check_mode": check, "lock_timeout": lock_timeout}
        process = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(COLLECTIONS), "PATH": f"{self.at}/commands:{os.environ['PATH']}"},
            check=False,
        )
        assert process.stdout, process.stderr
        answer: dict[str, Any] = json.loads(process.stdout)
        return answer

    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    yield Node(tmp_path)


def test_a_whole_node_costs_two_commands(node: Node) -> None:
    answer = node.run()
    assert not answer["changed"] and answer["broken"] == []
    assert node.calls() == ["dpkg --audit", "apt-get -q -o Debug::NoLocking=1 check"]


def test_an_audit_is_read_and_what_is_harmless_left_out() -> None:
    assert incomplete(AUDIT) == ["half", "other", "lost"]
    assert without_lists(AUDIT) == ["lost"] and incomplete("") == []


@pytest.mark.parametrize(
    ("prepare", "broken"),
    [
        (lambda node: (node.updates / "0001").touch(), "an installation by dpkg was interrupted"),
        (lambda node: node.set("audit", AUDIT), "not installed completely: half, other, lost"),
        (lambda node: node.set("unmet"), "apt-get check failed: E: Unmet dependencies."),
    ],
)
def test_what_is_broken_is_told_and_mended(node: Node, prepare: Any, broken: str) -> None:
    prepare(node)
    foreseen = node.run(check=True)
    assert foreseen["changed"] and foreseen["broken"] == [broken]
    assert not any("--configure" in call or "install" in call for call in node.calls())
    done = node.run()
    assert done["changed"] and done["broken"] == [broken] and done["diff"]["before"] == f"{broken}\n"
    calls = node.calls()
    configure = next(index for index, call in enumerate(calls) if "--configure -a" in call)
    fix = next(index for index, call in enumerate(calls) if "--fix-broken" in call and "--simulate" not in call)
    assert configure < fix and "DPkg::Lock::Timeout=600" in calls[fix]
    assert not node.run()["changed"]


def test_modules_of_a_kernel_are_listed_before_it_is_configured(node: Node) -> None:
    partial, whole, absent = "5.19.0-41-generic", "6.2.0-26-generic", "6.5.0-9-generic"
    states = {partial: "unpacked", whole: "installed", absent: "unpacked"}
    lines = (f"linux-image-{release}\tamd64\tinstall\t{state}\t1\n" for release, state in states.items())
    node.set("kernels", "".join(lines))
    for release in (partial, whole):
        (node.root / f"lib/modules/{release}/kernel").mkdir(parents=True)
    node.set("audit", AUDIT)
    node.run(check=True)
    assert not any(call.startswith("depmod") for call in node.calls())
    node.run()
    calls = node.calls()
    (listed,) = (index for index, call in enumerate(calls) if call.startswith("depmod"))
    assert calls[listed] == f"depmod {partial}"
    assert listed < next(index for index, call in enumerate(calls) if "--configure -a" in call)


def test_packages_whose_list_of_files_is_lost_are_installed_again(node: Node) -> None:
    node.set("audit", AUDIT)
    node.set("unconfigurable")
    node.set("stuck")
    assert "still broken" in node.run()["msg"]
    assert any(call.endswith("install --reinstall --no-install-recommends lost") for call in node.calls())


def test_whole_packages_are_not_removed(node: Node) -> None:
    node.set("unmet")
    node.set("removes", "whole")
    answer = node.run()
    assert answer["failed"] and "apt would remove whole" in answer["msg"]
    node.set("removes", "half")
    assert node.run()["changed"]


def test_what_dpkg_and_apt_say_is_in_the_error(node: Node) -> None:
    node.set("unmet")
    node.set("failing")
    assert node.run()["msg"].endswith("failed with status 100: E: Unable to fetch some archives")
    node.set("unconfigurable")
    message = node.run()["msg"]
    assert "dpkg: error processing package half" in message and "E: Unable to fetch" in message


def test_what_stays_broken_is_an_error(node: Node) -> None:
    node.set("unmet")
    node.set("stuck")
    assert "packages are still broken: apt-get check failed" in node.run()["msg"]


def test_others_that_install_packages_are_waited_for(node: Node) -> None:
    node.set("unmet")
    with node.lock.open("r+b") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        assert "another program has been installing packages for 1 s" in node.run(lock_timeout=1)["msg"]
        assert node.run(check=True)["changed"]  # which does not wait

        def finish() -> None:
            time.sleep(1)
            (node.at / "unmet").unlink()  # what looked broken was their work
            fcntl.lockf(lock, fcntl.LOCK_UN)

        thread = threading.Thread(target=finish)
        thread.start()
        assert not node.run()["changed"]
        thread.join()


def dkms_says(module: str, kernel: str) -> str:
    """What dpkg prints where a module does not build for the kernel whose headers it configures."""
    return f"""Setting up linux-headers-{kernel} (1) ...
/etc/kernel/header_postinst.d/dkms:
 * dkms: running auto installation service for kernel {kernel}
Error! Bad return status for module build on kernel: {kernel} (x86_64)
Consult /var/lib/dkms/{module}/build/make.log for more information.
   ...fail!
dpkg: error processing package linux-headers-{kernel} (--configure):
 installed linux-headers-{kernel} package post-installation script subprocess returned error exit status 1
"""


@pytest.mark.parametrize(
    ("module", "kernel"),
    [
        ("intel-platform-vsec-dkms/2023.20.0", "6.5.0-44-generic"),
        ("nvidia/535.183.01", "6.8.0-1013-oem"),
        ("v4l2loopback/0.12.5", "6.11.0-29-lowlatency"),
    ],
)
def test_a_module_that_does_not_build_is_named_with_its_log_and_what_to_do(module: str, kernel: str) -> None:
    said = dkms_says(module, kernel)
    name, log = module.split("/", maxsplit=1)[0], f"/var/lib/dkms/{module}/build/make.log"
    assert f"Consult {log}" in complaints(said) and f"linux-headers-{kernel}" in complaints(said)
    advice = module_advice(said)
    assert f"DKMS module {name} does not build for {kernel} (see {log} on the node)" in advice
    assert f"/etc/dkms/{name}.conf" in advice
    assert module_advice("dpkg: error processing package half") == ""


def test_the_kernel_that_a_module_does_not_build_for_is_told_from_one_before() -> None:
    built = " * dkms: running auto installation service for kernel 5.19.0-41-generic\n   ...done.\n"
    failed = dkms_says("nvidia/535.86.05", "6.8.0-45-generic")
    later = " * dkms: running auto installation service for kernel 6.11.0-29-generic\n"
    advice = module_advice(built + failed + later)
    assert "DKMS module nvidia does not build for 6.8.0-45-generic" in advice
    assert "5.19.0-41" not in advice


@pytest.mark.parametrize(
    "modules",
    [
        ["nvidia/535.86.05", "zfs/2.1.5"],
        ["intel-i915-dkms/1.23.5", "nvidia/570.1", "v4l2loopback/0.12.7"],
        ["zfs/2.1.5", "zfs/2.1.5"],
    ],
)
def test_every_module_that_does_not_build_is_told(modules: list[str]) -> None:
    advice = module_advice("".join(dkms_says(module, "6.8.0-45-generic") for module in modules))
    for module in modules:
        name = module.split("/", maxsplit=1)[0]
        assert advice.count(f"DKMS module {name} does not build for 6.8.0-45-generic") == 1
        assert advice.count(f"/etc/dkms/{name}.conf") == 1


def test_the_advice_is_in_the_error(tmp_path: Path) -> None:
    node = Node(tmp_path)
    node.set("audit", AUDIT)
    node.set("stuck")
    node.set("failing")
    (tmp_path / "unconfigurable").touch()
    command = tmp_path / "commands/dpkg"
    said = dkms_says("intel-i915-dkms/1.23", "6.8.0-45-generic").replace("\n", "\\n")
    text = command.read_text().replace("echo 'dpkg: error processing package half' >&2", f"printf '{said}'")
    command.write_text(text)
    assert (
        "limit it to another kernel with BUILD_EXCLUSIVE_KERNEL in /etc/dkms/intel-i915-dkms.conf" in node.run()["msg"]
    )
