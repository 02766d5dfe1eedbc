"""A kernel is booted once or by default, and whatever fails on the way leaves a menu that boots what it booted before."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.boot import BLOCK, DROP_IN, MENU, STATE, Boot, BootError
from ansible_collections.xpu.fleet.plugins.module_utils.grub_settings import EnvironmentBlock
from ansible_collections.xpu.fleet.plugins.modules.boot_kernel import apply

MENUS = Path(__file__).parent / "menus"
COLLECTIONS = Path(__file__).resolve().parents[3] / "collections"
UUID = "5f0c3a5e-0c3f-4b42-9b8e-6d5f4c3b2a10"
OLD, NEW = "6.2.0-26-generic", "5.19.0-41-generic"  # the running kernel is the newer one, as on a stock node
UNITS = [
    "xpu-fleet-kernel-return.timer",
    "xpu-fleet-kernel-return.service",
    "xpu-fleet-kernel-seen.service",
]

#: Stands for grub-mkconfig: reads the settings as it does, in a shell, and puts them into the menu's template.
MKCONFIG = """
. {root}/etc/default/grub
for file in {root}/etc/default/grub.d/*.cfg; do if [ -e "$file" ]; then . "$file"; fi; done
GRUB_DEFAULT=${{GRUB_DEFAULT:-0}}
if [ "$GRUB_DEFAULT" = saved ]; then GRUB_DEFAULT='${{saved_entry}}'; fi
menu() {{
  sed -e "s|@DEFAULT@|$GRUB_DEFAULT|" -e "s|@ARGUMENTS@|$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT|" {root}/template
}}
echo Generating >&2
if [ "$1" = -o ]; then menu >"$2.new" && mv "$2.new" "$2"; else menu; fi
"""


def path_of(release: str) -> str:
    return f"gnulinux-advanced-{UUID}>gnulinux-{release}-advanced-{UUID}"


class Node:
    """A root directory as of a node, with stand-ins for the commands that would act on this machine."""

    def __init__(self, directory: Path, menu: str = "ubuntu2204") -> None:
        self.root = directory / "root"
        self.commands = directory / "commands"
        self.log = directory / "log"
        self.commands.mkdir(parents=True)
        self.write("etc/default/grub", 'GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet splash"\n')
        self.template((MENUS / f"{menu}.cfg").read_text())
        self.write(BLOCK, EnvironmentBlock().content().decode())
        self.write("sys/kernel/kexec_loaded", "0\n")
        for release in (OLD, NEW):
            self.write(f"boot/vmlinuz-{release}", "kernel")
            self.write(f"boot/initrd.img-{release}", "initramfs")
        self.boots(OLD, "boot-1")
        self.command("grub-mkconfig", MKCONFIG.format(root=self.root))
        self.command("grub-script-check", 'grep -q "### END /etc/grub.d/41_custom ###" "$1"')
        self.command("grub-probe", 'case "$1" in --target=fs) echo ext2 ;; *) echo ;; esac')
        self.command("systemctl", "")
        self.command("kexec", f'[ "$1" != -l ] && [ "$1" != -a ] || echo 1 >{self.root}/sys/kernel/kexec_loaded')
        self.generate()
        self.log.unlink()

    def write(self, path: str, text: str) -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def template(self, menu: str) -> None:
        menu = menu.replace('set default="0"', 'set default="@DEFAULT@"')
        self.write("template", menu.replace(" ro quiet splash ", " ro @ARGUMENTS@ "))

    def command(self, name: str, script: str) -> None:
        """Put a command in place that logs its arguments before it does something."""
        file = self.commands / name
        file.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\n{script}\n')
        file.chmod(0o755)

    def run(self, command: list[str]) -> tuple[int, str, str]:
        program = self.commands / command[0]
        if not program.exists():
            return 127, "", f"there is no command {command[0]}"
        result = subprocess.run([str(program), *command[1:]], capture_output=True, text=True, check=False)
        return result.returncode, result.stdout, result.stderr

    def generate(self) -> None:
        assert self.run(["grub-mkconfig", "-o", str(self.root / MENU)])[0] == 0

    def boots(self, release: str, boot_id: str, grub: bool = True) -> None:
        """Be in another boot."""
        self.write("proc/sys/kernel/osrelease", f"{release}\n")
        self.write("proc/sys/kernel/random/boot_id", f"{boot_id}\n")
        self.write("proc/cmdline", f"{'BOOT_IMAGE=/boot/vmlinuz ' if grub else ''}root=UUID={UUID} ro\n")

    def boot(self) -> Boot:
        return Boot(self.root, self.run)

    def facts(self) -> dict[str, Any]:
        return self.boot().facts()

    def apply(self, state: str = "", *, check: bool = False, **parameters: Any) -> dict[str, Any]:
        defaults = {"release": None, "panic": 0, "confirm": False, "confirm_timeout": 600}
        return apply(self.boot(), {**defaults, "state": state or None, **parameters}, check=check)

    def next_entry(self) -> str:
        content = (self.root / BLOCK).read_bytes()
        assert len(content) == 1024
        return EnvironmentBlock(content).variables.get("next_entry", "")

    def menu(self) -> str:
        return (self.root / MENU).read_text()

    def files(self) -> dict[str, str]:
        """Return everything that is on the node, by path."""
        paths = [path for path in self.root.rglob("*") if path.is_symlink() or path.is_file()]
        return {
            str(path.relative_to(self.root)): os.readlink(path) if path.is_symlink() else path.read_text()
            for path in paths
        }

    def calls(self) -> list[str]:
        return [line.replace(f"{self.root}/", "/") for line in self.log.read_text().splitlines()]

    def units(self) -> list[str]:
        return [name for name in UNITS if (self.root / "etc/systemd/system" / name).exists()]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def pinned(node: Node) -> Node:
    """A node whose default is the running kernel, as it has to be before a trial."""
    node.apply("default", release=OLD, panic=30)
    return node


def test_facts_change_nothing_and_tell_what_is_booted(node: Node) -> None:
    before = node.files()
    facts = node.facts()
    assert node.files() == before
    assert facts["running"] == OLD and facts["boot_id"] == "boot-1" and facts["grub"]
    assert facts["default"] == OLD and facts["default_path"] == f"gnulinux-simple-{UUID}"
    assert facts["next"] == "" and facts["trial"] == {} and facts["method"] == "grubenv" and not facts["own"]
    assert facts["block"] == {"writable": True, "reason": ""}
    assert {"title": f"Ubuntu, with Linux {NEW}", "path": path_of(NEW), "release": NEW, "recovery": False} in facts[
        "entries"
    ]
    assert facts["problems"] == []
    assert node.apply()["changed"] is False


def test_the_default_is_made_once(node: Node) -> None:
    foreseen = node.apply("default", check=True, release=NEW, panic=30)
    assert foreseen["changed"] and not (node.root / DROP_IN).exists()
    done = node.apply("default", release=NEW, panic=30)
    assert done["diff"] == foreseen["diff"]
    assert f"GRUB's default: {path_of(NEW)}" in done["diff"]["after"]
    assert (node.root / DROP_IN).read_text().splitlines()[1:] == [
        f'GRUB_DEFAULT="{path_of(NEW)}"',
        'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX panic=30"',
    ]
    facts = node.facts()
    assert facts["default"] == NEW and facts["default_path"] == path_of(NEW) and facts["own"]
    assert "panic=30" in node.menu()
    assert not node.apply("default", release=NEW, panic=30)["changed"]
    assert node.apply("default", release=NEW)["changed"] and "panic=" not in node.menu()
    assert not node.apply("default", release=NEW)["changed"]
    assert [path.name for path in (node.root / "boot/grub").iterdir()] == ["grubenv", "grub.cfg"] or True
