"""A kernel is booted once or by default; any failure on the way leaves a menu that boots the former kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.boot import grub_writer, trial
from ansible_collections.xpu.fleet.plugins.module_utils.boot.boot import (
    Boot,
)
from ansible_collections.xpu.fleet.plugins.module_utils.boot.files import (
    BLOCK,
    DROP_IN,
    MENU,
    ORIGIN,
    STATE,
    BootError,
)
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_settings import EnvironmentBlock
from ansible_collections.xpu.fleet.plugins.modules.boot_kernel import LACKING, apply

MENUS = Path(__file__).parents[1] / "support/menus"
COLLECTIONS = Path(__file__).resolve().parents[4] / "collections"
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
  arguments="$GRUB_CMDLINE_LINUX $GRUB_CMDLINE_LINUX_DEFAULT"
  sed -e "s|@DEFAULT@|$GRUB_DEFAULT|" -e "s|@ARGUMENTS@|$arguments|" {root}/template
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
            return 127, "", f"command not found: {command[0]}"
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
            str(path.relative_to(self.root)): str(path.readlink()) if path.is_symlink() else path.read_text()
            for path in paths
        }

    def calls(self) -> list[str]:
        return [line.replace(f"{self.root}/", "/") for line in self.log.read_text().splitlines()]

    def units(self) -> list[str]:
        return [name for name in UNITS if (self.root / "etc/systemd/system" / name).exists()]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the syncs to the disk, which take time; tests that run the module have them."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    for module in (grub_writer, trial):
        monkeypatch.setattr(module, "write_back", lambda directory: None)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


@pytest.fixture
def pinned(node: Node) -> Node:
    """A node whose default is the running kernel, as a trial requires."""
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


@pytest.mark.parametrize(("loader", "kexec"), [("114", False), ("208", True), ("", False)])
def test_a_kernel_that_kexec_started_is_told(node: Node, loader: str, kexec: bool) -> None:
    node.write("proc/sys/kernel/bootloader_type", f"{loader}\n")
    assert node.facts()["grub"] and node.facts()["kexec"] is kexec


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
    assert {path.name for path in (node.root / "boot/grub").iterdir()} == {"grubenv", "grub.cfg"}


# ---------------------------------------------------------------------------------------------------- the default


def test_a_menu_older_than_its_settings_is_made_anew(node: Node) -> None:
    old = node.menu()
    node.apply("default", release=NEW, panic=30)
    node.write(MENU, old)  # as if the power was lost between the settings and the menu
    assert node.apply("default", release=NEW, panic=30)["changed"]
    assert node.facts()["default"] == NEW


@pytest.mark.parametrize("release", [OLD, NEW])
def test_a_menu_made_without_an_initramfs_is_made_anew(node: Node, release: str) -> None:
    node.apply("default", release=OLD, panic=30)
    whole = node.menu()
    line = f"\tinitrd\t/boot/initrd.img-{release}\n"
    node.write(MENU, whole.replace(line, ""))
    assert line in whole and node.boot().state().lacking == (release,)
    foreseen = node.apply("default", check=True, release=OLD, panic=30)
    assert foreseen["changed"] and f"{LACKING}: {release}" in foreseen["diff"]["before"] and line not in node.menu()
    assert node.apply("default", release=OLD, panic=30)["changed"] and node.menu() == whole
    assert not node.apply("default", release=OLD, panic=30)["changed"]
    # Without the file the menu is correct.
    node.write(MENU, whole.replace(line, ""))
    (node.root / f"boot/initrd.img-{release}").unlink()
    assert node.boot().state().lacking == ()


def test_a_menu_that_tries_without_an_initramfs_first_stays(tmp_path: Path) -> None:
    node = Node(tmp_path, "ubuntu2204-cloud")
    for release in ("5.15.0-91-generic", "5.15.0-88-generic"):
        node.write(f"boot/initrd.img-{release}", "initramfs")
    assert "initrdless" in node.menu() and node.boot().state().lacking == ()


@pytest.mark.parametrize("damage", ["", "menuentry 'cut {", "menuentry a {\n"])
def test_a_damaged_menu_is_told_and_made_anew(node: Node, damage: str) -> None:
    node.write(MENU, damage)
    facts = node.facts()
    assert facts["default"] == "" and facts["entries"] == [] and facts["problems"] == []
    assert [MENU in text for text in facts["notes"]] == [True]
    assert node.apply("default", check=True, release=OLD)["changed"] and node.menu() == damage
    assert node.apply("default", release=OLD)["changed"]
    assert node.facts()["default"] == OLD


def test_a_kernel_that_the_menu_does_not_know_yet_is_found_in_a_new_one(node: Node) -> None:
    whole = node.menu()
    node.write(MENU, whole.replace(NEW, "5.15.0-91-generic"))
    assert node.apply("default", check=True, release=NEW)["changed"]
    assert node.apply("default", release=NEW)["changed"] and node.facts()["default"] == NEW
    with pytest.raises(BootError, match=r"no entry of kernel 6\.9\.0-1-generic; it has 6\.2"):
        node.apply("default", release="6.9.0-1-generic")


def test_a_link_to_the_menu_is_followed_and_its_mode_stays(node: Node) -> None:
    real = node.root / "boot/elsewhere.cfg"
    (node.root / MENU).rename(real)
    (node.root / MENU).symlink_to("/boot/elsewhere.cfg")
    real.chmod(0o600)
    node.apply("default", release=NEW)
    assert (node.root / MENU).is_symlink() and path_of(NEW) in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o600


def test_the_kernel_of_the_first_change_is_where_a_rollback_goes(node: Node) -> None:
    assert node.facts()["origin"] == ""
    node.apply("default", release=OLD, panic=30)
    assert node.facts()["origin"] == OLD
    node.apply("once", release=NEW)
    node.boots(NEW, "boot-2")
    node.apply("default", release=NEW, confirm=True)
    assert node.facts()["origin"] == OLD
    node.write(ORIGIN, "")  # as a power cut may leave a file
    assert node.apply("default", release=NEW)["changed"] and node.facts()["origin"] == NEW
    node.apply("absent")
    assert node.facts()["origin"] == "" and not (node.root / ORIGIN).exists()


def test_the_default_is_left_to_other_settings_once_the_newest_kernel_is_proven(node: Node) -> None:
    older, newest = NEW, OLD  # of this menu
    node.boots(older, "boot-2")
    node.apply("default", release=older, panic=30)
    assert not node.apply("followed", release=older)["changed"]
    node.apply("once", release=newest)
    node.boots(newest, "boot-3")
    assert not node.apply("followed", release=newest)["changed"]  # as its trial is open
    node.apply("default", release=newest, confirm=True)
    assert node.facts()["own"] and node.facts()["follows"]
    foreseen, files = node.apply("followed", release=newest, check=True), node.files()
    assert foreseen["changed"] and node.files() == files
    assert node.apply("followed", release=newest)["changed"]
    facts = node.facts()
    assert (facts["own"], facts["default"], facts["origin"]) == (False, newest, older)
    assert not node.apply("followed", release=newest)["changed"]


def test_a_default_of_other_settings_that_is_older_stays_overridden(node: Node) -> None:
    node.write("etc/default/grub", f'GRUB_TIMEOUT=0\nGRUB_DEFAULT="{path_of(NEW)}"\n')
    node.generate()
    node.apply("default", release=OLD, confirm=True)
    assert not node.facts()["follows"]
    assert not node.apply("followed", release=OLD)["changed"]
    assert node.facts()["default"] == OLD


def test_an_unfinished_trial_does_not_outlive_a_new_default(pinned: Node) -> None:
    pinned.apply("once", release=NEW)
    assert pinned.apply("default", release=OLD, panic=30)["changed"]
    assert pinned.next_entry() == "" and pinned.units() == UNITS  # only confirming takes the timer away
    assert pinned.facts()["trial"]["release"] == NEW


@pytest.mark.parametrize(
    ("settings", "value"),
    [
        ('GRUB_CMDLINE_LINUX="panic=10"\n', "10"),
        ('GRUB_CMDLINE_LINUX="panic=10"\nGRUB_CMDLINE_LINUX_DEFAULT="quiet panic=5"\n', "5"),
        ("GRUB_CMDLINE_LINUX=oops=panic\n", "30"),
    ],
)
def test_a_panic_of_other_settings_stays(node: Node, settings: str, value: str) -> None:
    node.write("etc/default/grub", f"GRUB_TIMEOUT=0\n{settings}")
    node.generate()
    node.apply("default", release=OLD, panic=30)
    assert ("panic=" in (node.root / DROP_IN).read_text()) == (value == "30")
    assert node.boot().state().panic == value
    assert not node.apply("default", release=OLD, panic=30)["changed"]


def test_settings_that_keep_a_failed_kernel_are_refused(node: Node) -> None:
    node.write("etc/default/grub", "GRUB_CMDLINE_LINUX=panic=0\n")
    with pytest.raises(BootError, match="panic=0"):
        node.apply("default", release=OLD, panic=30)


def test_only_the_running_kernel_can_be_confirmed(pinned: Node) -> None:
    with pytest.raises(BootError, match=f"kernel {NEW} cannot be confirmed: kernel {OLD} runs"):
        pinned.apply("default", release=NEW, confirm=True)


# --------------------------------------------------------------------------- what fails leaves the menu that was there

FAILURES = {
    "no grub-mkconfig": ("grub-mkconfig", None, "command not found: grub-mkconfig"),
    "it fails": ("grub-mkconfig", "echo 'disk full' >&2; echo half >$2.new; exit 1", "status 1: disk full"),
    "it writes nothing": ("grub-mkconfig", "exit 0", "made no menu"),
    "it writes half": ("grub-mkconfig", "head -c 5000 {root}/boot/grub/grub.cfg >$2", "grub-script-check"),
    "it writes nonsense": (
        "grub-mkconfig",
        "printf 'menuentry {{\n### END /etc/grub.d/41_custom ###\n' >$2",
        "ends in the middle",
    ),
    "the check fails": ("grub-script-check", "echo 'syntax error' >&2; exit 1", "syntax error"),
    "another default": (
        "grub-mkconfig",
        "sed 's/^   set default=.*/   set default=0/' {root}/template >$2",
        "/etc/grub.d/00_header overrides GRUB_DEFAULT",
    ),
    "a later script": (
        "grub-mkconfig",
        "sed 's/^# the .exec tail.*/set default=0/' {root}/template >$2",
        "/etc/grub.d/40_custom overrides GRUB_DEFAULT",
    ),
}


@pytest.mark.parametrize("before", ["", "an earlier file"])
@pytest.mark.parametrize("failure", FAILURES)
def test_a_failure_leaves_menu_and_settings_as_they_were(node: Node, failure: str, before: str) -> None:
    command, script, message = FAILURES[failure]
    if before:
        node.apply("default", release=OLD, panic=10)
    files = node.files()
    (node.commands / command).unlink()
    if script is not None:
        node.command(command, script.format(root=node.root))
    with pytest.raises(BootError) as error:
        node.apply("default", release=NEW, panic=30)
    assert message in str(error.value)
    assert node.files() == files


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("90-other.cfg", "GRUB_DEFAULT=0\n", "/etc/default/grub.d/90-other.cfg overrides GRUB_DEFAULT"),
        (
            "90-other.cfg",
            "GRUB_CMDLINE_LINUX=quiet\n",
            "GRUB_CMDLINE_LINUX was set last by /etc/default/grub.d/90-other",
        ),
    ],
)
def test_a_file_that_overrides_the_settings_is_named(node: Node, name: str, text: str, message: str) -> None:
    node.write(f"etc/default/grub.d/{name}", text)
    files = node.files()
    with pytest.raises(BootError) as error:
        node.apply("default", release=NEW, panic=30)
    assert message in str(error.value)
    assert node.files() == files


@pytest.mark.parametrize("state", ["default", "absent"])
@pytest.mark.parametrize("command", ["grub-mkconfig", "grub-script-check"])
def test_a_module_that_is_killed_leaves_the_menu_and_the_next_run_converges(
    node: Node, state: str, command: str
) -> None:
    if state == "absent":
        node.apply("default", release=NEW, panic=30)
    menu = node.menu()
    script = (node.commands / command).read_text().partition("\n")[2].partition("\n")[2]
    node.command(
        command,
        'echo half >"$2.new"; echo half >"$2"; kill -9 $PPID' if command == "grub-mkconfig" else "kill -9 $PPID",
    )
    code = (
        "from pathlib import Path; from ansible_collections.xpu.fleet.plugins.modules import boot_kernel as m; "
        f"m.ROOT = Path({str(node.root)!r}); m.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS), "PATH": f"{node.commands}:{os.environ['PATH']}"}
    arguments = json.dumps({"ANSIBLE_MODULE_ARGS": {"state": state, "release": NEW, "panic": 30}})
    process = subprocess.run([sys.executable, "-c", code], input=arguments, text=True, env=environment, check=False)
    assert process.returncode == -9
    assert node.menu() == menu
    node.command(command, script)
    assert node.apply(state, release=NEW, panic=30)["changed"]
    assert node.facts()["default"] == (NEW if state == "default" else OLD)
    assert not node.apply(state, release=NEW, panic=30)["changed"]
    assert {path.name for path in (node.root / "boot/grub").iterdir()} == {"grubenv", "grub.cfg"}


# ---------------------------------------------------------------------------------------------------------- trials


def test_a_trial_is_armed_once_and_its_entry_last(pinned: Node) -> None:
    foreseen = pinned.apply("once", check=True, release=NEW)
    assert foreseen["changed"] and pinned.units() == [] and pinned.next_entry() == ""
    done = pinned.apply("once", release=NEW)
    assert done["diff"] == foreseen["diff"] and done["reboot_command"] == ""
    assert f"next_entry: {path_of(NEW)}" in done["diff"]["after"]
    assert pinned.next_entry() == path_of(NEW) and pinned.units() == UNITS
    record = json.loads((pinned.root / STATE / "trial.json").read_text())
    assert record == {
        "release": NEW,
        "origin": OLD,
        "boot_id": "boot-1",
        "attempt": 1,
        "confirm_timeout": 600,
        "method": "grubenv",
    }
    assert pinned.calls()[-1] == "systemctl daemon-reload"
    assert not pinned.apply("once", release=NEW)["changed"]
    facts = pinned.facts()
    assert facts["next"] == NEW and facts["default"] == OLD
    assert facts["trial"]["outcome"] == "armed" and facts["trial"]["origin"] == OLD


def test_the_timer_returns_only_from_the_kernel_on_trial(pinned: Node) -> None:
    pinned.apply("once", release=NEW, confirm_timeout=120)
    units = pinned.root / "etc/systemd/system"
    timer = (units / "xpu-fleet-kernel-return.timer").read_text()
    for line in ("DefaultDependencies=no", f"ConditionKernelVersion={NEW}", "IgnoreOnIsolate=yes", "OnBootSec=120"):
        assert line in timer.splitlines()
    service = (units / "xpu-fleet-kernel-return.service").read_text()
    assert "ExecStart=/usr/bin/systemctl --force reboot" in service.splitlines()
    assert f"ConditionKernelVersion={NEW}" in (units / "xpu-fleet-kernel-seen.service").read_text()
    for name in ("xpu-fleet-kernel-return.timer", "xpu-fleet-kernel-seen.service"):
        assert (units / "sysinit.target.wants" / name).resolve() == units / name


def test_a_trial_that_succeeds_is_closed(pinned: Node) -> None:
    pinned.apply("once", release=NEW)
    pinned.write(BLOCK, EnvironmentBlock().content().decode())  # GRUB took the entry
    pinned.boots(NEW, "boot-2")
    assert pinned.facts()["trial"]["outcome"] == "running"
    assert not pinned.apply("once", release=NEW)["changed"]
    done = pinned.apply("default", release=NEW, confirm=True)
    assert done["changed"] and pinned.units() == []
    assert sorted(path.name for path in (pinned.root / STATE).iterdir()) == ["confirmed", "origin.json"]
    calls = pinned.calls()
    assert calls[-2:] == ["systemctl stop xpu-fleet-kernel-return.timer", "systemctl daemon-reload"]
    facts = pinned.facts()
    assert facts["trial"] == {} and facts["default"] == NEW and "panic=" not in pinned.menu()
    assert facts["default_untried"]
    assert not pinned.apply("default", release=NEW, confirm=True)["changed"]
    pinned.boots(NEW, "boot-3")
    assert not pinned.facts()["default_untried"]
    pinned.apply("absent")
    assert not (pinned.root / STATE).exists()


def test_a_timer_that_cannot_be_stopped_is_an_error(pinned: Node) -> None:
    pinned.apply("once", release=NEW)
    pinned.boots(NEW, "boot-2")
    menu = pinned.menu()
    pinned.command("systemctl", "echo 'Failed to stop' >&2; exit 1")
    with pytest.raises(BootError, match=r"systemctl stop xpu-fleet-kernel-return\.timer failed .*Failed to stop"):
        pinned.apply("default", release=NEW, confirm=True)
    assert pinned.menu() == menu and pinned.facts()["default"] == OLD and pinned.units() == UNITS
    pinned.command("systemctl", "")
    assert pinned.apply("default", release=NEW, confirm=True)["changed"] and pinned.units() == []


@pytest.mark.parametrize("confirm", [True, False])
@pytest.mark.parametrize("failing", ["menu", "flush"])
def test_no_timer_ever_returns_from_the_default(
    pinned: Node, monkeypatch: pytest.MonkeyPatch, confirm: bool, failing: str
) -> None:
    pinned.apply("once", release=NEW)
    pinned.boots(NEW, "boot-2")

    def cut(*arguments: object) -> None:
        raise OSError("the power is lost")

    # Just before the new menu is in its place, and just after it.
    if failing == "flush":
        monkeypatch.setattr(grub_writer, "write_back", cut)
    else:  # the settings are written with the same call
        monkeypatch.setattr(Path, "replace", cut)
        monkeypatch.setattr(grub_writer, "write_durably", lambda path, content: path.write_bytes(content))
    with pytest.raises(OSError, match="the power is lost"):
        pinned.apply("default", release=NEW, confirm=confirm)
    monkeypatch.undo()
    assert pinned.facts()["default"] == (OLD if failing == "menu" else NEW)
    assert pinned.units() == [] and "systemctl stop xpu-fleet-kernel-return.timer" in pinned.calls()
    assert pinned.facts()["trial"]["outcome"] == "running"  # so that the next run proves it
    assert pinned.apply("default", release=NEW, confirm=True)["changed"]
    assert pinned.facts()["default"] == NEW and pinned.facts()["trial"] == {}


def test_a_menu_that_cannot_be_made_leaves_the_timer(pinned: Node) -> None:
    pinned.apply("once", release=NEW)
    pinned.boots(NEW, "boot-2")
    pinned.command("grub-script-check", "exit 1")
    with pytest.raises(BootError, match="grub-script-check"):
        pinned.apply("default", release=NEW, confirm=True)
    assert pinned.units() == UNITS and pinned.facts()["default"] == OLD


def test_the_timer_is_gone_before_the_menu_is_left_to_others(pinned: Node) -> None:
    pinned.apply("once", release=NEW)
    pinned.boots(NEW, "boot-2")
    pinned.command("systemctl", "exit 1")
    files = pinned.files()
    with pytest.raises(BootError, match="systemctl stop"):
        pinned.apply("absent")
    assert pinned.files() == files


@pytest.mark.parametrize(
    ("seen", "taken", "explanation"),
    [
        (
            "",
            True,
            f"kernel {NEW} was booted once and never reached systemd (a panic, no root file system, or a power cut)",
        ),
        (f"boot-2\n{NEW}\n", True, "came up, but was not confirmed within 600 s"),
        ("", False, "power was lost, or the node restarted, before GRUB took its entry"),
        (f"boot-2\n{NEW}\n", False, "came up, but was not confirmed"),
        (f"boot-2\n{OLD}\n", True, "never reached systemd"),
    ],
)
def test_a_node_that_came_back_says_why(pinned: Node, seen: str, taken: bool, explanation: str) -> None:
    pinned.apply("once", release=NEW)
    if taken:
        pinned.write(BLOCK, EnvironmentBlock().content().decode())
    if seen:
        pinned.write(f"{STATE}/seen", seen)
    pinned.boots(OLD, "boot-3")
    found = pinned.facts()["trial"]
    assert found["outcome"] == "fell_back" and explanation in found["explanation"]
    assert pinned.apply("once", release=NEW)["changed"]
    assert pinned.facts()["trial"]["attempt"] == 2 and pinned.facts()["trial"]["outcome"] == "armed"
    assert not (pinned.root / STATE / "seen").exists()


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda node: node.write("boot/vmlinuz-" + NEW, ""), f"/boot/vmlinuz-{NEW}, which the entry"),
        (lambda node: (node.root / f"boot/initrd.img-{NEW}").unlink(), "is missing or empty"),
        (lambda node: node.write(MENU, node.menu().replace(f"\tinitrd\t/boot/initrd.img-{NEW}\n", "")), "no initramfs"),
        (lambda node: node.apply("default", release=NEW, panic=30), "the node must return to"),
        (lambda node: node.apply("default", release=OLD), "has no panic="),
        (lambda node: node.write("etc/default/grub", "GRUB_TIMEOUT=-1\n"), "GRUB_TIMEOUT=-1 in /etc/default/grub"),
        (
            lambda node: node.write("etc/default/grub.d/x.cfg", "GRUB_RECORDFAIL_TIMEOUT='-1'\n"),
            "GRUB_RECORDFAIL_TIMEOUT=-1 in /etc/default/grub.d/x.cfg",
        ),
        (lambda node: node.write(MENU, node.menu().replace("set timeout=30", "set timeout=-1")), "timeout of -1"),
        (lambda node: node.boots(OLD, "boot-1", grub=False), "GRUB did not boot this node"),
        (lambda node: node.write(MENU, (MENUS / "fedora-bls.cfg").read_text()), "blscfg"),
        (lambda node: node.write(MENU, ""), "is empty"),
        (lambda node: node.write(MENU, node.menu().replace(NEW, "5.15.0-91-generic")), f"no entry of kernel {NEW}"),
        (
            lambda node: node.write(MENU, node.menu().replace("${next_entry}", "${other}")),
            "does not support next_entry",
        ),
        (lambda node: node.write(MENU, node.menu().replace("save_env next_entry", "")), "does not support next_entry"),
        (lambda node: node.write(MENU, "set superusers=root\n" + node.menu()), "passwords"),
        (lambda node: node.command("grub-probe", "echo cryptodisk"), "asks for a passphrase"),
    ],
)
def test_a_trial_that_is_not_safe_is_refused_before_anything_is_written(
    pinned: Node, prepare: Any, reason: str
) -> None:
    prepare(pinned)
    files = pinned.files()
    for check in (True, False):
        with pytest.raises(BootError) as error:
            pinned.apply("once", check=check, release=NEW)
        assert f"kernel {NEW} cannot be booted on trial: " in str(error.value) and reason in str(error.value)
    assert pinned.files() == files


def test_a_kernel_that_goes_from_the_menu_is_no_error_of_facts(node: Node) -> None:
    node.apply("default", release=NEW)
    node.template((MENUS / "ubuntu2204.cfg").read_text().replace(NEW, "5.15.0-91-generic"))
    node.generate()
    facts = node.facts()
    assert facts["default"] == OLD
    assert facts["problems"] == [] and f"'{path_of(NEW)}' is not in its menu" in facts["notes"][0]
    node.apply("default", release=OLD)
    assert node.facts()["notes"] == []


def test_a_menu_that_cannot_be_made_is_a_problem(node: Node) -> None:
    (node.root / MENU).unlink()
    (node.commands / "grub-mkconfig").unlink()
    facts = node.facts()
    assert facts["notes"] == [] and "is not there" in facts["problems"][0]


def test_missing_files_of_the_default_are_told(node: Node) -> None:
    (node.root / f"boot/initrd.img-{OLD}").unlink()
    assert f"/boot/initrd.img-{OLD}, which the entry" in node.facts()["notes"][0]


def test_passwords_and_settings_in_the_way_are_told(node: Node) -> None:
    node.write("etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT=panic=0\n")
    assert "panic=0" in node.facts()["problems"][0]
    node.write(MENU, "set superusers=root\n" + node.menu())
    assert "passwords" in node.facts()["problems"][0]
    with pytest.raises(BootError, match="passwords"):
        node.apply("default", release=OLD)


def test_a_damaged_record_is_told_and_written_anew(pinned: Node) -> None:
    for text in ("{", "[]", '{"release": "x"}'):
        pinned.write(f"{STATE}/trial.json", text)
        facts = pinned.facts()
        assert facts["trial"] == {} and facts["problems"] == [] and "trial.json is damaged" in facts["notes"][0]
    pinned.apply("once", release=NEW)
    assert pinned.facts()["notes"] == [] and pinned.facts()["trial"]["attempt"] == 1
    pinned.write(f"{STATE}/trial.json", "{")
    assert pinned.apply("absent")["changed"] and pinned.facts()["notes"] == []


# -------------------------------------------------------------------------- where GRUB cannot write its environment


@pytest.mark.parametrize(
    ("probe", "reason"),
    [
        ("case $1 in *fs) echo btrfs;; esac", "GRUB does not write to btrfs"),
        ("case $1 in *fs) echo zfs;; esac", "GRUB does not write to zfs"),
        ("case $1 in *fs) echo ext2;; *) echo lvm;; esac", "GRUB does not write to lvm"),
        ("case $1 in *fs) echo ext2;; *) echo diskfilter mdraid1x;; esac", "GRUB does not write to diskfilter"),
        ("echo 'cannot find a device' >&2; exit 1", "grub-probe --target=fs failed: cannot find a device"),
        ("", "GRUB does not write to an unknown file system"),
    ],
)
def test_kexec_is_taken_where_grub_cannot_write(pinned: Node, probe: str, reason: str) -> None:
    pinned.command("grub-probe", probe)
    facts = pinned.facts()
    assert facts["block"] == {"writable": False, "reason": reason} and facts["method"] == "kexec"
    assert facts["problems"] == []
    done = pinned.apply("once", release=NEW)
    assert done["reboot_command"] == "systemctl kexec" and pinned.next_entry() == ""
    load = next(line for line in pinned.calls() if line.startswith("kexec -a -l"))
    assert load == (
        f"kexec -a -l /boot/vmlinuz-{NEW} --command-line=BOOT_IMAGE=/boot/vmlinuz-{NEW} root=UUID={UUID} ro panic=30 "
        f"quiet splash --initrd=/boot/initrd.img-{NEW}"
    )
    again = pinned.apply("once", release=NEW)
    assert not again["changed"] and again["reboot_command"] == "systemctl kexec"
    pinned.write("sys/kernel/kexec_loaded", "0\n")
    pinned.boots(OLD, "boot-3")
    assert "never reached systemd" in pinned.facts()["trial"]["explanation"]


def test_a_kernel_loaded_by_kexec_is_unloaded_again(pinned: Node) -> None:
    pinned.command("grub-probe", "case $1 in *fs) echo btrfs;; esac")
    pinned.apply("once", release=NEW)
    pinned.apply("absent")
    assert "kexec -u" in pinned.calls()


def test_without_any_way_a_trial_is_refused(pinned: Node) -> None:
    pinned.command("grub-probe", "case $1 in *fs) echo btrfs;; esac")
    (pinned.commands / "kexec").unlink()
    assert pinned.facts()["method"] == "" and "no kexec" in pinned.facts()["problems"][0]
    with pytest.raises(BootError, match=r"GRUB does not write to btrfs, and kexec is not installed"):
        pinned.apply("once", release=NEW)
    (pinned.root / "sys/kernel/kexec_loaded").unlink()
    pinned.command("kexec", "")
    assert pinned.facts()["method"] == ""


@pytest.mark.parametrize("content", [b"", b"# GRUB Environment Block\n", b"\0" * 1024])
def test_a_damaged_block_is_not_written_to(pinned: Node, content: bytes) -> None:
    (pinned.root / BLOCK).write_bytes(content)
    facts = pinned.facts()
    assert facts["method"] == "kexec" and f"/{BLOCK}: GRUB's environment block" in facts["block"]["reason"]
    pinned.apply("once", release=NEW)
    assert (pinned.root / BLOCK).read_bytes() == content


def test_a_block_behind_a_link_is_left_alone_and_one_that_is_missing_is_made(pinned: Node) -> None:
    (pinned.root / BLOCK).rename(pinned.root / "boot/block")
    (pinned.root / BLOCK).symlink_to("../block")
    assert "symbolic link" in pinned.facts()["block"]["reason"]
    (pinned.root / BLOCK).unlink()
    assert pinned.facts()["method"] == "grubenv"
    pinned.apply("once", release=NEW)
    assert pinned.next_entry() == path_of(NEW)


def test_the_block_is_written_in_place(pinned: Node) -> None:
    same = pinned.root / "same"
    os.link(pinned.root / BLOCK, same)  # Path.hardlink_to is for Python 3.10 and newer
    pinned.apply("once", release=NEW)
    assert EnvironmentBlock(same.read_bytes()).variables == {"next_entry": path_of(NEW)}


def test_a_full_block_is_an_error(pinned: Node) -> None:
    block = EnvironmentBlock()
    block.set("x", "y" * 900)
    (pinned.root / BLOCK).write_bytes(block.content())
    with pytest.raises(BootError, match="block is full"):
        pinned.apply("once", release=NEW)
    assert (pinned.root / BLOCK).read_bytes() == block.content()


# ------------------------------------------------------------------------------------------------------ taking away


def test_everything_is_taken_away(pinned: Node, tmp_path: Path) -> None:
    other = Node(tmp_path / "other")
    untouched = {name: text.replace(str(other.root), "") for name, text in other.files().items()}
    pinned.apply("once", release=NEW)
    foreseen = pinned.apply("absent", check=True)
    assert foreseen["changed"] and pinned.units() == UNITS
    done = pinned.apply("absent")
    assert done["diff"] == foreseen["diff"]
    files = {name: text.replace(str(pinned.root), "") for name, text in pinned.files().items()}
    assert files == untouched
    assert not pinned.apply("absent")["changed"]


def test_taking_away_needs_no_grub_where_nothing_is_ours(node: Node) -> None:
    node.write(MENU, (MENUS / "fedora-bls.cfg").read_text())
    (node.commands / "grub-mkconfig").unlink()
    assert not node.apply("absent")["changed"]


# ------------------------------------------------------------------------------------------------------- the module


def test_the_module_answers_as_documented(node: Node) -> None:
    node.apply("default", release=OLD, panic=30)
    code = (
        "from pathlib import Path; from ansible_collections.xpu.fleet.plugins.modules import boot_kernel as m; "
        f"m.ROOT = Path({str(node.root)!r}); m.main()"
    )
    environment = {**os.environ, "PYTHONPATH": str(COLLECTIONS), "PATH": f"{node.commands}:{os.environ['PATH']}"}

    def run(**arguments: Any) -> dict[str, Any]:
        process = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        answer: dict[str, Any] = json.loads(process.stdout)
        return answer

    facts = run()
    assert not facts["changed"] and facts["boot"]["default"] == OLD
    assert (facts["method"], facts["reboot_command"]) == ("grubenv", "")
    tried = run(state="once", release=NEW)
    assert tried["changed"] and tried["boot"]["next"] == NEW
    refused = run(state="once", release="6.9.0-1-generic")
    assert refused["failed"] and "no entry of kernel 6.9.0-1-generic" in refused["msg"]
    assert refused["boot"]["running"] == OLD
    assert run(state="default")["failed"]  # needs a release
