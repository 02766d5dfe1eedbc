"""A machine's state, and the expected states: after a fault, converged, as found."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import yaml

ROOT = Path(__file__).resolve().parents[3]
State = Mapping[str, Any]
#: PCI id of the card that the machines have.
CARD = "0x56a0"


class Shell(Protocol):
    """A machine that runs commands."""

    def ssh(self, command: str, check: bool = True) -> str:
        """Run a command and return its output."""


@cache
def stack() -> dict[str, Any]:
    """The data of the stack that the machines get."""
    text = (ROOT / "roles/stack/vars/arc-647.yml").read_text(encoding="utf-8")
    definition: dict[str, Any] = yaml.safe_load(text)["stack_definition"]
    return definition


def wanted() -> str:
    """The kernel release that the stack names."""
    return str(stack()["kernel"]["release"])


@dataclass(frozen=True)
class Patient:
    """A machine whose connections may fail now and then, as those of a busy one do."""

    machine: Shell
    patience: float = 300.0

    def ssh(self, command: str, check: bool = True) -> str:
        """Run a command; if SSH itself fails (255), repeat it for a while."""
        deadline = time.monotonic() + self.patience
        while True:
            said = self.machine.ssh(f"{{ {command}\n}} 2>&1; echo STATUS=$?", False)
            output, found, status = said.rstrip().rpartition("STATUS=")
            if found and (status == "0" or not check):
                return output
            if found:
                raise ShellError(f"status {status}: {output.strip()[-300:]} (of {command[:60]!r})")
            if time.monotonic() > deadline:
                raise ShellError(f"the machine does not take commands (of {command[:60]!r})")
            time.sleep(1.0)  # an SSH server that is not up tells nobody when it is


class ShellError(Exception):
    """A command failed on a machine."""


def as_root(machine: Shell, script: str, check: bool = True) -> str:
    """Run a shell script on a machine as root."""
    return machine.ssh(f"sudo sh -euc {shlex.quote(script)}", check)


def look(machine: Shell, files: bool = False) -> dict[str, Any]:
    """Return a machine's state; with ``files`` also the checksums of /boot and /etc."""
    script = (Path(__file__).parent / "on_machine.py").read_text(encoding="utf-8")
    words = "files" if files else ""
    said = Patient(machine).ssh(f"sudo python3 - {words} <<'THE-END'\n{script}\nTHE-END")
    found: dict[str, Any] = json.loads(said)
    return found


def release_of(package: str) -> str:
    """Return the kernel release of a package, "" for others and for metapackages."""
    match = re.match(r"linux-(?:image|headers|modules|modules-extra)-(?:unsigned-)?(\d+\.\d+\.\d+-\S+)$", package)
    return match[1] if match else ""


def unfit(state: State) -> list[str]:
    """Return the faults of a machine after an injected one: it has to be whole, whatever kernel it runs."""
    boot, packages = state["boot"], state["packages"]
    problems = [f"{path} of the running kernel is missing or empty" for path in boot["lacking"]]
    if boot["read_only"]:
        problems.append("the root file system is mounted read-only")
    if boot["written_wrong"]:
        problems.append(f"the file system has found {boot['written_wrong']} errors")
    image = [name for name in packages["installed"] if name.startswith("linux-image-")]
    if boot["kernel"] not in {release_of(name) for name in image}:
        problems.append(f"the image of the running kernel {boot['kernel']} is not installed any more")
    return problems


def unproven(state: State, origin: str) -> list[str]:
    """Return faults of a machine's kernels: it has to run a proven one, and be able to boot that again."""
    boot, packages = state["boot"], state["packages"]
    releases = {release_of(name) for name in packages["installed"] if name.startswith("linux-image-")}
    problems = []
    if boot["kernel"] not in (origin, wanted()):
        problems.append(f"it runs {boot['kernel']}")
    settled = not boot["trial"] and any(f"-{wanted()}-" in entry for entry in boot["default"])
    if boot["kernel"] == wanted() and not settled:
        problems.append(f"it runs {wanted()}, which nobody has proven")
    if origin not in releases and not settled:
        problems.append(f"the kernel {origin} was removed before {wanted()} was proven")
    return problems


def unconverged(state: State, access: bool = False) -> list[str]:
    """Return where a machine differs from the playbook's promise; with ``access`` also for the people of xpu_users."""
    boot, packages, gpu = state["boot"], state["packages"], state["gpu"]
    kernel, driver = stack()["kernel"], stack()["driver"]
    problems = unfit(state)

    def expect(found: Any, right: Any, what: str) -> None:
        if found != right:
            problems.append(f"{what}: {found!r}, expected {right!r}")

    expect(boot["kernel"], wanted(), "running kernel")
    expect([_is_entry(entry, wanted()) for entry in boot["default"]], [True], f"GRUB's default {boot['default']} by id")
    expect([line for line in boot["environment"] if re.match("next_entry=.", line)], [], "GRUB's next entry")
    expect(boot["panic"], [], "panic= in GRUB's menu")
    expect("panic=" in boot["command_line"], False, "panic= on the command line")
    expect(boot["armed"], [], "return timer's units")
    expect(boot["timer"] in ("inactive", "unknown", ""), True, "return timer inactive")
    expect(boot["trial"], "", "record of a trial")
    expect(
        {name: packages["installed"].get(name) for name in kernel["packages"]}, kernel["packages"], "kernel packages"
    )
    expect(sorted(set(kernel["packages"]) - set(packages["held"])), [], "kernel packages that are not held")
    expect(sorted(set(kernel["metapackages"]) & set(packages["installed"])), [], "metapackages left")
    others = [name for name in packages["installed"] if release_of(name) not in ("", wanted())]
    expect(others, [], "other kernels' packages")
    expect(packages["unfinished"], {}, "unfinished packages")
    for entry in driver["dkms"]:
        built = rf"{re.escape(entry['module'])}[/,].*{re.escape(wanted())}, .*: installed"
        if not any(re.match(built, line) for line in packages["dkms"]):
            problems.append(f"DKMS module {entry['module']} is not built: {packages['dkms']}")
    expect(gpu["drivers"], {CARD: driver["module"]}, "driver of the card")
    expect(bool(gpu["loaded"]) and gpu["loaded"] == gpu["on_disk"], True, "the loaded module is the one on disk")
    expect(gpu["magic"], wanted(), "kernel that the module is built for")
    expect("/updates/" in gpu["module"], True, "module of DKMS")
    expect(gpu["render"].get("group"), "render", "group of the render node")
    expect(gpu["render"].get("character_device"), True, "render node is a device")
    if access:
        expect(gpu["render"].get("xpu_opens_it"), True, "render node opens for a person of xpu_users")
    expect(boot["system"], "running", f"systemd's state (failed: {boot['failed'] or 'none'})")
    return problems


def _is_entry(default: str, release: str) -> bool:
    """Tell whether a default names the normal entry of a release by its id."""
    return default.rpartition(">")[2].startswith(f"gnulinux-{release}-advanced-")


def differences(before: State, after: State) -> list[str]:
    """Return where a machine differs from before; a regenerated initramfs differs only in time stamps."""
    found = []
    for what in ("installed", "unfinished", "held", "manual", "dkms", "remains"):
        old, new = (_as_set(state["packages"][what]) for state in (before, after))
        found += [f"{what}: {item} is gone" for item in sorted(old - new)]
        found += [f"{what}: {item} is new" for item in sorted(new - old)]
    for what in ("kernel", "default", "panic", "drop_in", "armed", "trial"):
        if before["boot"][what] != after["boot"][what]:
            found.append(f"{what}: {after['boot'][what]!r}, before {before['boot'][what]!r}")
    old, new = before.get("files", {}), after.get("files", {})
    for path in sorted(set(old) | set(new)):
        if path not in new:
            found.append(f"{path} is gone")
        elif path not in old:
            found.append(f"{path} is new")
        elif old[path] != new[path] and not path.startswith("/boot/initrd.img-"):
            found.append(f"{path} has other contents")
    return found


def _as_set(value: Any) -> set[str]:
    return {f"{name} {rest}" for name, rest in value.items()} if isinstance(value, Mapping) else set(value)
