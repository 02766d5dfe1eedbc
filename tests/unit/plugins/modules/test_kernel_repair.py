"""Damage of a kernel after an interrupted installation is found and repaired."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (
    damaged_files,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import (
    CommandError,
    complaints,
)
from ansible_collections.xpu.fleet.plugins.modules import kernel_repair
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import apt_locked

RELEASE = "5.19.0-41-generic"
IMAGE, MODULES = f"linux-image-{RELEASE}", f"linux-modules-{RELEASE}"
LISTS = ("modules.dep", "modules.dep.bin", "modules.alias", "modules.alias.bin")
PACKAGES = {IMAGE: "5.19.0-41.42", MODULES: "5.19.0-41.42", "linux-absent": "1"}

COMMANDS = {
    "dpkg": """case "$1" in
  --print-architecture) echo amd64 ;;
  --verify) [ ! -e {at}/damage-$2 ] || cat {at}/damage-$2 ;;
esac""",
    "dpkg-query": """printf '%s\\tamd64\\t%s\\tinstalled\\t5.19.0-41.42\\n' """ + f"{IMAGE} hold {MODULES} install",
    "apt-mark": "",
    "apt-get": "[ -e {at}/stuck ] || rm -f {at}/damage-*",
    "depmod": f"for list in {' '.join(LISTS)}; do echo x >{{at}}/root/lib/modules/$1/$list; done",
    "update-initramfs": "[ -e {at}/stuck ] || echo usr/lib/modules/$3/kernel/x.ko >{at}/root/boot/initrd.img-$3",
    "lsinitramfs": 'grep -q broken "$1" && exit 1; cat "$1"',
}


class Node:
    """A kernel's files, with stand-ins for the commands that repair them."""

    def __init__(self, directory: Path) -> None:
        self.at, self.root, self.log = directory, directory / "root", directory / "log"
        self.initramfs = self.write(f"boot/initrd.img-{RELEASE}", f"usr/lib/modules/{RELEASE}/kernel/x.ko\n")
        self.lists = {name: self.write(f"lib/modules/{RELEASE}/{name}", "x") for name in LISTS}
        self.write(f"lib/modules/{RELEASE}/kernel/x.ko", "module")
        for name, script in COMMANDS.items():
            command = directory / "commands" / name
            command.parent.mkdir(exist_ok=True)
            command.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\n{script.format(at=directory)}\n')
            command.chmod(0o755)

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def repair(self, check: bool = False, lock_timeout: int = 600) -> list[str]:
        return kernel_repair.InstalledKernel(RELEASE, PACKAGES, self.root).repair(
            check=check, lock_timeout=lock_timeout
        )

    def changes(self) -> list[str]:
        """Return the commands that changed something since this was asked last."""
        quiet = ("dpkg ", "dpkg-query ", "lsinitramfs ")
        lines = self.log.read_text().splitlines()
        self.log.write_text("")
        return [line for line in lines if line and not line.startswith(quiet)]


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setenv("PATH", f"{tmp_path}/commands:{os.environ['PATH']}")
    return Node(tmp_path)


def test_an_error_of_dpkg_is_told_with_what_it_says_about_it() -> None:
    output = """Reading package lists...
Removing linux-image-6.2.0-26-generic (6.2.0-26.26) ...

run-parts: executing /etc/kernel/postrm.d/zz-update-grub
grub-probe: error: cannot find a device for the root (is /dev mounted?).
run-parts: /etc/kernel/postrm.d/zz-update-grub exited with return code 1
dpkg: error processing package linux-image-6.2.0-26-generic (--remove):
 installed linux-image-6.2.0-26-generic package post-removal script subprocess returned error exit status 1
Errors were encountered while processing:
 linux-image-6.2.0-26-generic
E: Sub-process /usr/bin/dpkg returned an error code (1)
"""
    assert complaints(output).split(" / ") == [
        "grub-probe: error: cannot find a device for the root (is /dev mounted?).",
        "run-parts: /etc/kernel/postrm.d/zz-update-grub exited with return code 1",
        "dpkg: error processing package linux-image-6.2.0-26-generic (--remove):",
        "installed linux-image-6.2.0-26-generic package post-removal script subprocess returned error exit status 1",
        "E: Sub-process /usr/bin/dpkg returned an error code (1)",
    ]
    assert complaints("a\nb\n") == "a / b"


def test_a_whole_kernel_is_left_alone(node: Node) -> None:
    assert node.repair() == [] and node.changes() == []


def test_settings_may_differ_and_files_may_not() -> None:
    assert damaged_files(
        "??5?????? c /etc/kernel/x\n??5??????   /boot/vmlinuz\nmissing     /lib/x y\nmissing   c /etc/y\nnonsense\n"
    ) == ["/boot/vmlinuz", "/lib/x y"]


def test_damaged_packages_are_installed_again_at_their_version(node: Node) -> None:
    (node.at / f"damage-{IMAGE}").write_text(f"??5??????   /boot/vmlinuz-{RELEASE}\n")
    foreseen = node.repair(check=True)
    assert foreseen == [f"{IMAGE} has damaged files: /boot/vmlinuz-{RELEASE}"] and node.changes() == []
    assert node.repair() == foreseen
    call, kept = node.changes()
    assert "DPkg::Lock::Timeout=600" in call and "install --reinstall" in call
    assert call.endswith(f" {IMAGE}=5.19.0-41.42") and MODULES not in call
    assert kept == f"apt-mark hold {IMAGE}"
    assert node.repair() == []


def test_a_hold_waits_for_others_that_install_packages(node: Node) -> None:
    (node.at / f"damage-{IMAGE}").write_text(f"??5??????   /boot/vmlinuz-{RELEASE}\n")
    with apt_locked(node.root), pytest.raises(CommandError, match="another program has been installing packages for 1"):
        node.repair(lock_timeout=1)


def test_a_package_that_is_not_held_is_not_held_then(node: Node) -> None:
    (node.at / f"damage-{MODULES}").write_text("missing     /lib/modules/x\n")
    node.repair()
    (call,) = node.changes()
    assert call.endswith(f" {MODULES}=5.19.0-41.42")


def test_packages_that_cannot_be_had_are_an_error(node: Node) -> None:
    (node.at / f"damage-{IMAGE}").write_text(f"??5??????   /boot/vmlinuz-{RELEASE}\n")
    (node.at / "stuck").touch()  # apt-get says that it cannot, and succeeds
    with pytest.raises(CommandError, match=f"still damaged: {IMAGE}: /boot/vmlinuz-{RELEASE}"):
        node.repair()


@pytest.mark.parametrize(
    ("content", "problem", "option"),
    [
        (None, "is missing or empty", "-c"),
        ("", "is missing or empty", "-u"),
        ("broken", "cannot be read", "-u"),
        ("usr/lib/modules/6.2.0-26-generic/kernel/x.ko\n", f"has no modules of {RELEASE}", "-u"),
        # What mkinitramfs makes where depmod's lists are empty.
        (f"usr/lib/modules/{RELEASE}/modules.builtin\n", f"has no modules of {RELEASE}", "-u"),
    ],
)
def test_the_initramfs_is_made_where_it_is_none_of_this_kernel(
    node: Node, content: str | None, problem: str, option: str
) -> None:
    if content is None:
        node.initramfs.unlink()
    else:
        node.initramfs.write_text(content)
    assert node.repair(check=True) == [f"initrd.img-{RELEASE} {problem}"] and node.changes() == []
    assert node.repair() == [f"initrd.img-{RELEASE} {problem}"]
    assert node.changes() == [f"update-initramfs {option} -k {RELEASE}"]
    assert node.repair() == []


def test_an_initramfs_that_stays_broken_is_an_error(node: Node) -> None:
    node.initramfs.write_text("")
    (node.at / "stuck").touch()
    with pytest.raises(CommandError, match=r"still damaged: initrd\.img"):
        node.repair()


@pytest.mark.parametrize("content", [None, ""])
@pytest.mark.parametrize("name", LISTS)
def test_lists_of_modules_are_made_and_the_initramfs_after_them(node: Node, name: str, content: str | None) -> None:
    if content is None:
        node.lists[name].unlink()
    else:
        node.lists[name].write_text(content)
    assert len(node.repair(check=True)) == 2 and node.changes() == []
    assert node.repair()[0] == f"missing or empty for {RELEASE}: {name}"
    assert node.changes() == [f"depmod {RELEASE}", f"update-initramfs -u -k {RELEASE}"]
    assert node.repair() == []


def test_a_kernel_that_is_not_installed_is_not_looked_at(node: Node) -> None:
    node.initramfs.unlink()
    assert (
        kernel_repair.InstalledKernel("6.9.0-1-generic", {"linux-absent": "1"}, node.root).repair(
            check=False, lock_timeout=1
        )
        == []
    )


def test_the_module_answers_as_documented(node: Node) -> None:
    node.initramfs.write_text("")
    collections = Path(__file__).resolve().parents[4] / "collections"
    code = (
        "from pathlib import Path; from ansible_collections.xpu.fleet.plugins.modules import kernel_repair as m; "
        f"m.ROOT = Path({str(node.root)!r}); m.main()"
    )

    def run() -> dict[str, Any]:
        process = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": {"release": RELEASE, "packages": PACKAGES}}),
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(collections)},
            check=False,
        )
        answer: dict[str, Any] = json.loads(process.stdout)
        return answer

    done = run()
    assert done["changed"] and done["damaged"] == [f"initrd.img-{RELEASE} is missing or empty"]
    assert done["diff"]["before"] == f"initrd.img-{RELEASE} is missing or empty\n"
    assert not run()["changed"]
