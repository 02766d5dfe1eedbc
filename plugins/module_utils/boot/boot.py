"""Which kernel a node boots: now, by default, and once on trial.

Nothing is changed before everything was read and found in order. What is changed is changed so that a node can lose its
power, or the connection, between any two steps and still boots a kernel that has run on it before.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Callable, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub import Entry, Menu, MenuError
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_settings import (
    BlockError,
    EnvironmentBlock,
    Settings,
    menu_quote,
    settings_files,
    shell_quote,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import Run, run_as_is
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import flush, put_in_place, write_durably
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

DROP_IN = "etc/default/grub.d/60-xpu-fleet.cfg"
MENU = "boot/grub/grub.cfg"
BLOCK = "boot/grub/grubenv"
STATE = "var/lib/xpu-fleet/kernel"
#: The kernel that ran when something was changed here for the first time: where a rollback goes.
ORIGIN = f"{STATE}/origin.json"
#: The boot in which a trial was confirmed: as long as it lasts, GRUB has not booted the kernel as its default.
CONFIRMED = f"{STATE}/confirmed"
#: What a state calls kernels whose entries were made while their initramfs was missing.
LACKING = "entries without their initramfs"
UNITS = "etc/systemd/system"
TIMER = "xpu-fleet-kernel-return.timer"
#: File systems and layers below them that GRUB reads but does not write. It does write to LUKS (its cryptodisk encrypts
#: what it writes), for which it asks a passphrase before.
READ_ONLY_FILE_SYSTEMS = frozenset(
    ("btrfs", "cpiofs", "newc", "odc", "romfs", "squash4", "tarfs", "zfs"),
)
READ_ONLY_LAYERS = frozenset(("diskfilter", "lvm"))

_STAYS = "the settings of GRUB say panic=0, with which a node whose kernel fails would not return; remove it"
_HEADING = "# Written by xpu.fleet; changes are overwritten.\n"
_KEXEC = 0xD  # among the boot loaders' numbers in the kernel's boot protocol
_EXT4_CHECKPOINT = 0x4004662B  # EXT4_IOC_CHECKPOINT, _IOW('f', 43, __u32)
_RETURN_TIMER = """\
[Unit]
Description=Return to the former kernel unless the fleet confirms this one
DefaultDependencies=no
ConditionKernelVersion={release}
IgnoreOnIsolate=yes

[Timer]
OnBootSec={seconds}
AccuracySec=1s
"""
_RETURN_SERVICE = """\
[Unit]
Description=Return to the former kernel
DefaultDependencies=no
ConditionKernelVersion={release}
IgnoreOnIsolate=yes

[Service]
Type=oneshot
ExecStart=/usr/bin/systemctl --force reboot
"""
_SEEN_SERVICE = """\
[Unit]
Description=Note that the kernel on trial came up
DefaultDependencies=no
ConditionKernelVersion={release}
RequiresMountsFor=/{state}
After=local-fs.target systemd-remount-fs.service

[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/osrelease >/{state}/seen; sync /{state}/seen'
"""


class BootError(FleetError):
    """What was asked cannot be done; the message says why and what helps."""


def describe(state: Mapping[str, str]) -> str:
    """Return a state as text for a diff."""
    blocks = []
    for name, text in state.items():
        if text:
            blocks.append(f"{name}:\n{text.rstrip()}\n" if "\n" in text else f"{name}: {text}\n")
    return "\n".join(blocks)


class Boot:
    """What decides the next boots of a node whose files are below ``root``."""

    def __init__(self, root: Path = Path("/"), run: Run = run_as_is) -> None:
        """Read everything; nothing that is missing or damaged is an error here."""
        self._root = root
        self._run = run
        self._damage: list[str] = []
        self.running = self._text("proc/sys/kernel/osrelease").strip()
        self.boot_id = self._text("proc/sys/kernel/random/boot_id").strip()
        self.by_grub = any(word.startswith("BOOT_IMAGE=") for word in self._text("proc/cmdline").split())
        #: Its command line looks as if GRUB had booted it, but GRUB has not.
        self.by_kexec = int(self._text("proc/sys/kernel/bootloader_type").strip() or 0) >> 4 == _KEXEC
        self._files = settings_files(root / "etc")
        self._settings = Settings(self._files)
        self.block, self.block_problem = self._read_block()
        self._menu_text = self._text(MENU)
        self.menu, self.menu_problem = self._read_menu()
        self.trial = self._read_trial()
        self.origin = self._read_origin()
        self.unwritable, self._layers = self._unwritable()

    # ------------------------------------------------------------------------------------------------------- reading

    def _text(self, path: str) -> str:
        """Return a file's text, "" where it is not there."""
        try:
            return (self._root / path).read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return ""

    def _read_block(self) -> tuple[EnvironmentBlock, str]:
        try:
            return EnvironmentBlock((self._root / BLOCK).read_bytes()), ""
        except FileNotFoundError:
            return EnvironmentBlock(), ""
        except (OSError, BlockError) as error:
            return EnvironmentBlock(), f"/{BLOCK}: {error}"

    def _read_menu(self) -> tuple[Optional[Menu], str]:
        if not self._menu_text:
            return None, f"/{MENU} is not there, is empty or cannot be read"
        try:
            return self._parsed(self._menu_text), ""
        except MenuError as error:
            return None, f"/{MENU}: {error}"

    def _parsed(self, text: str, next_entry: str = "") -> Menu:
        """Return a menu as GRUB sees it, with an entry for the next boot or without."""
        block = {key: value for key, value in self.block.variables.items() if key != "next_entry"}
        if next_entry:
            block["next_entry"] = next_entry
        sources = {"custom.cfg": self._text("boot/grub/custom.cfg")}
        return Menu(text, block, {name: source for name, source in sources.items() if source})

    def _read_trial(self) -> dict[str, Any]:
        text = self._text(f"{STATE}/trial.json")
        try:
            record = json.loads(text or "{}")
            if not isinstance(record, dict) or (record and not {"release", "origin", "boot_id"} <= record.keys()):
                raise ValueError("it has not what it must have")
        except ValueError as error:
            self._damage.append(f"/{STATE}/trial.json is damaged: {error}")
            return {}
        return record

    def _read_origin(self) -> str:
        with suppress(ValueError, TypeError, KeyError):
            return str(json.loads(self._text(ORIGIN))["release"])
        return ""

    def _unwritable(self) -> tuple[str, set[str]]:
        """Return why GRUB cannot write its environment block, "" where it can, and the layers below its directory."""
        directory = str((self._root / BLOCK).parent)
        answers = []
        for target in ("fs", "abstraction"):
            status, output, error = self._run(["grub-probe", f"--target={target}", directory])
            if status:
                return f"grub-probe --target={target} failed: {(error or output).strip()}", set()
            answers.append(set(output.split()))
        systems, layers = answers
        if (self._root / BLOCK).is_symlink():
            return f"/{BLOCK} is a symbolic link, through which GRUB does not write", layers
        if self.block_problem:
            return f"{self.block_problem} (without this file a new one is made)", layers
        lacking = sorted(systems & READ_ONLY_FILE_SYSTEMS) + sorted(layers & READ_ONLY_LAYERS)
        if lacking or not systems:
            return f"GRUB does not write to {' and '.join(lacking) or 'an unknown file system'}", layers
        return "", layers

    # --------------------------------------------------------------------------------------------------------- facts

    def facts(self) -> dict[str, Any]:
        """Return what is known, with all that stands in the way of a change as ``problems``."""
        entries = self.menu.all_entries() if self.menu else []
        default = self._default_entry()
        return {
            "running": self.running,
            "boot_id": self.boot_id,
            "grub": self.by_grub,
            "kexec": self.by_kexec,
            "entries": [
                {"title": entry.title, "path": entry.path, "release": entry.release, "recovery": entry.recovery}
                for entry in entries
            ],
            "default": default.release if default else "",
            "default_path": default.path if default else "",
            "next": self._next_release(),
            "block": {"writable": not self.unwritable, "reason": self.unwritable},
            "method": self.method(),
            "own": (self._root / DROP_IN).exists(),
            "origin": self.origin,
            "trial": self._trial_facts(),
            "default_untried": bool(self.boot_id) and self._text(CONFIRMED).strip() == self.boot_id,
            "problems": self._problems(),
            "notes": self._notes(),
        }

    def method(self) -> str:
        """Return how a kernel can be booted once: through grubenv, by kexec, or "" for not at all."""
        if not self.unwritable:
            return "grubenv"
        loaded = (self._root / "sys/kernel/kexec_loaded").exists()
        return "kexec" if loaded and self._run(["kexec", "--version"])[0] == 0 else ""

    def _default_entry(self) -> Optional[Entry]:
        try:
            return self.menu.default_entry() if self.menu else None
        except MenuError:
            return None

    def _next_release(self) -> str:
        following = self.block.variables.get("next_entry", "")
        entry = self.menu.resolve(following) if self.menu and following else None
        return entry.release if entry else ""

    def _problems(self) -> list[str]:
        """Return what forbids any change of what is booted, or a boot for one time."""
        problems = self._common_problems()
        if self.menu is None and not self._can_make_menus():
            problems.append(f"{self.menu_problem}, and there is no grub-mkconfig")
        entry = self._default_entry()
        if self.menu and entry:
            problems += filter(None, [self.menu.asks_password(entry)])
        if self._other_panic() == "0":
            problems.append(_STAYS)
        if not self.method():
            problems.append(f"no kernel can be booted for one time only: {self.unwritable}, and there is no kexec")
        return list(dict.fromkeys(problems))

    def _notes(self) -> list[str]:
        """Return what is wrong and is mended where a default, or a trial, is set."""
        menu = self.menu
        if menu is None:
            return self._damage + ([self.menu_problem] if self._can_make_menus() else [])
        if menu.boot_loader_spec:
            return self._damage
        try:
            entry = menu.default_entry()
        except MenuError as error:
            return [*self._damage, str(error)]
        notes = list(self._damage)
        if menu.default and not menu.has_named(menu.default):
            notes.append(f"GRUB's default '{menu.default}' is not in its menu, so it boots the first entry, {entry}")
        if entry.kind == "linux" and not entry.foreign:
            notes += self._missing_files(entry)
        return notes

    def _can_make_menus(self) -> bool:
        return self._run(["grub-mkconfig", "--version"])[0] == 0

    def _common_problems(self) -> list[str]:
        """Return what forbids any change of what is booted, but for a damaged menu."""
        problems = []
        if not self.by_grub:
            problems.append("GRUB did not boot this node: its kernel has no BOOT_IMAGE= on its command line")
        if self.menu and self.menu.boot_loader_spec:
            problems.append(
                "GRUB's menu takes its entries from /boot/loader/entries (blscfg), which are chosen by other means"
            )
        return problems + self._waits()

    def _waits(self) -> list[str]:
        """Return what would wait for a person before a kernel boots."""
        problems = []
        for key in ("GRUB_TIMEOUT", "GRUB_RECORDFAIL_TIMEOUT"):
            setting = self._settings.get(key)
            if setting and (setting.value or "").strip().startswith("-"):
                place = self._shown(setting.path)
                problems.append(f"{key}={setting.value} in {place} lets GRUB wait for a person; set seconds there")
        if not problems and self.menu and self.menu.waits():
            problems.append(f"{self.menu.waits()}; set GRUB_TIMEOUT in /etc/default/grub")
        if "cryptodisk" in self._layers:
            problems.append("GRUB asks for a passphrase before each boot: its directory is on an encrypted disk")
        return problems

    def _without_initramfs(self) -> list[str]:
        """Return the kernels that have an initramfs which no entry of the menu loads."""
        if self.menu is None or self.menu.boot_loader_spec:
            return []
        whole = {entry.release for entry in self.menu.all_entries() if entry.initrds}
        bare = (release for release in self.menu.releases() if release not in whole)
        return [release for release in bare if _has_content(self._root / f"boot/initrd.img-{release}")]

    def _missing_files(self, entry: Entry) -> list[str]:
        files = map(self._boot_file, (*entry.kernels, *entry.initrds))
        missing = [self._shown(path) for path in files if not _has_content(path)]
        return [f"{path}, which the entry {entry} loads, is missing or empty" for path in missing]

    def _boot_file(self, path: str) -> Path:
        """Return where a file of the menu is in the running system: GRUB may see /boot as a file system of its own."""
        inside = self._root / "boot" / path.rsplit("/", 1)[-1]
        return inside if inside.exists() else self._root / path.lstrip("/")

    def _shown(self, path: object) -> str:
        """Return the path of a file as it is on the node."""
        return "/" + os.path.relpath(str(path), self._root)

    def _trial_facts(self) -> dict[str, Any]:
        record = self.trial
        if not record:
            return {}
        outcome, explanation = self._outcome(record)
        return {
            "release": record["release"],
            "origin": record["origin"],
            "attempt": record.get("attempt", 1),
            "outcome": outcome,
            "explanation": explanation,
        }

    def _outcome(self, record: Mapping[str, Any]) -> tuple[str, str]:
        release = record["release"]
        if record["boot_id"] == self.boot_id:
            return "armed", f"kernel {release} is to be booted once, at the next boot"
        if self.running == release:
            return "running", f"kernel {release} runs on trial and is not confirmed yet"
        seen = self._text(f"{STATE}/seen").split()
        if len(seen) == 2 and seen[1] == release:
            return "fell_back", (
                f"kernel {release} came up, and nothing confirmed it within {record.get('confirm_timeout', 0)} s "
                "(no network, or the controller was gone): the node returned by itself"
            )
        if record.get("method") == "grubenv" and self.block.variables.get("next_entry"):
            return "fell_back", (
                f"kernel {release} was not booted: power was lost, or the node restarted, before GRUB took its entry"
            )
        return "fell_back", (
            f"kernel {release} was booted once and never reached systemd (a panic, no root file system, or a power cut)"
        )

    # -------------------------------------------------------------------------------------------------------- states

    def state(self) -> dict[str, str]:
        """Return all that the states of the module set, as texts by name."""
        entry = self._default_entry()
        return {
            "GRUB's default": entry.path if entry else "",
            "panic": entry.argument("panic") if entry else "",
            "next_entry": self.block.variables.get("next_entry", ""),
            LACKING: ", ".join(self._without_initramfs()),
            f"/{DROP_IN}": self._text(DROP_IN),
            **{f"/{path}": self._text(path) for path in _units("", 0)},
            **{f"/{path}": _link(self._root / path) for path in _links()},
            "trial": json.dumps(self.trial, indent=2, sort_keys=True)
            if self.trial
            else self._text(f"{STATE}/trial.json"),
            "kexec": self.trial.get("release", "") if self._loaded() else "",
            "origin": self.origin,
        }

    def _loaded(self) -> bool:
        """Tell whether kexec holds the kernel of a trial."""
        loaded = self._text("sys/kernel/kexec_loaded").strip() == "1"
        return loaded and self.trial.get("method") == "kexec"

    def want_default(self, release: str, panic: int, confirm: bool) -> dict[str, str]:
        """Return the state in which a kernel is the default; raises BootError where that cannot be reached."""
        if not self.by_grub or (self.menu and self.menu.boot_loader_spec):
            raise BootError("; ".join(self._common_problems()))
        if confirm and release != self.running:
            raise BootError(f"kernel {release} cannot be confirmed: kernel {self.running} runs")
        wanted = self.state()
        entry = self._entry(release)
        others = self._other_panic()
        if panic and others == "0":
            raise BootError(_STAYS)
        wanted["GRUB's default"] = entry.path
        wanted["panic"] = others or (str(panic) if panic else "")
        wanted["next_entry"] = ""
        wanted[LACKING] = ""
        wanted[f"/{DROP_IN}"] = self._drop_in(entry.path, 0 if others else panic)
        wanted["origin"] = self.origin or self.running
        return {**wanted, **self._closed()} if confirm or self._returns_from(release) else wanted

    def want_tried(self, release: str, confirm_timeout: int) -> dict[str, str]:
        """Return the state in which a kernel is booted once; raises BootError where that is not safe."""
        state = self.state()
        if release == self.running:
            return state
        problems = self._common_problems()
        problems += self._trial_problems(self.menu, release) if self.menu else [self.menu_problem]
        if not self.method():
            problems.append(f"{self.unwritable}, and kexec is not installed (package kexec-tools) or not possible")
        if problems:
            raise BootError(f"kernel {release} cannot be tried: {'; '.join(dict.fromkeys(problems))}")
        entry = self._entry(release)
        before = self.trial
        same = before.get("release") == release
        attempt = int(before.get("attempt", 1)) if same else 0
        again = same and before.get("boot_id") == self.boot_id
        record = {
            "release": release,
            "origin": self.running,
            "boot_id": self.boot_id,
            "attempt": attempt if again else attempt + 1,
            "confirm_timeout": confirm_timeout,
            "method": self.method(),
        }
        return {
            **state,
            "next_entry": entry.path if self.method() == "grubenv" else "",
            **{f"/{path}": text for path, text in _units(release, confirm_timeout).items()},
            **{f"/{path}": target for path, target in _links().items()},
            "trial": json.dumps(record, indent=2, sort_keys=True),
            "kexec": release if self.method() == "kexec" else "",
        }

    def want_absent(self) -> dict[str, str]:
        """Return the state without anything of this collection."""
        wanted = {**self.state(), **self._closed(), "next_entry": "", "origin": ""}
        if (self._root / DROP_IN).exists():
            foreign = "as the other settings say"
            wanted.update({"GRUB's default": foreign, "panic": self._other_panic(), f"/{DROP_IN}": ""})
        return wanted

    def _returns_from(self, release: str) -> bool:
        """Tell whether the timer of a trial would reboot the node while it runs a kernel."""
        return f"ConditionKernelVersion={release}" in self._text(f"{UNITS}/{TIMER}").splitlines()

    def _closed(self) -> dict[str, str]:
        return {**{f"/{path}": "" for path in (*_units("", 0), *_links())}, "trial": "", "kexec": ""}

    def _entry(self, release: str) -> Entry:
        """Return the entry of a kernel; the present menu may be damaged, or older than the kernel."""
        menu = self.menu
        if menu is None or (release not in menu.releases() and _has_content(self._root / f"boot/vmlinuz-{release}")):
            fresh = self._checked_run(["grub-mkconfig"])
            try:
                menu = self._parsed(fresh)
            except MenuError as error:
                raise BootError(f"what grub-mkconfig writes is not understood: {error}") from error
        try:
            entry = menu.find(release)
        except MenuError as error:
            raise BootError(str(error)) from error
        asks = menu.asks_password(entry)
        if asks:
            raise BootError(asks)
        return entry

    def _other_panic(self) -> str:
        """Return the value of panic= in the settings that are not ours, "" without one."""
        settings = Settings({path: text for path, text in self._files.items() if path != str(self._root / DROP_IN)})
        words: list[str] = []
        for key in ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT"):  # in the order of an entry's arguments
            setting = settings.get(key)
            words += (setting.value or "").split() if setting else []
        values = [word.partition("=")[2] for word in words if word.startswith("panic=")]
        return values[-1] if values else ""

    def _drop_in(self, path: str, panic: int) -> str:
        lines = [f"GRUB_DEFAULT={shell_quote(menu_quote(path))}\n"]
        if panic:
            lines.append(f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX panic={panic}"\n')
        return _HEADING + "".join(lines)

    def _trial_problems(self, menu: Menu, release: str) -> list[str]:
        """Return why a kernel cannot be booted once without risk."""
        try:
            entry, default = menu.find(release), menu.default_entry()
        except MenuError as error:
            return [f"{error}; where its packages are installed, update-grub makes the menu anew"]
        problems = list(filter(None, [menu.asks_password(entry), menu.asks_password(default)]))
        if default.release != self.running or default.kind != "linux" or default.foreign or default.recovery:
            problems.append(
                f"GRUB's default is {default} and not the running kernel {self.running}, to which the node has to "
                "return; make that the default first"
            )
        problems += self._missing_files(entry)
        if default.initrds and not entry.initrds:
            problems.append(f"the entry {entry} has no initramfs; update-initramfs and update-grub make it")
        if entry.argument("panic") in ("", "0"):
            problems.append(
                f"the entry {entry} has no panic=, so a node would not return by itself; make the default with one"
            )
        if self.method() == "grubenv" and not self._takes_next_entry(entry):
            problems.append("GRUB's menu does not take next_entry for one boot, as menus of grub-mkconfig do")
        return problems

    def _takes_next_entry(self, entry: Entry) -> bool:
        """Tell whether the menu boots the entry that next_entry names, and takes that away before it does."""
        menu = self._parsed(self._menu_text, entry.path)
        chosen = menu.resolve(menu.default) if menu.default is not None else None
        return chosen is not None and chosen.path == entry.path and menu.saved.get("next_entry") == ""

    # -------------------------------------------------------------------------------------------------------- acting

    def make_default(self, release: str, wanted: Mapping[str, str], *, confirm: bool) -> None:
        """Bring about what want_default returned."""
        found = self.state()
        ends_trial = confirm or self._returns_from(release)
        if any(found[name] != wanted[name] for name in ("GRUB's default", "panic", LACKING, f"/{DROP_IN}")):
            text = wanted[f"/{DROP_IN}"]

            def check(menu: Menu) -> None:
                self._check_default(menu, release, wanted["panic"])
                # A timer beside the new menu would reboot each boot of its default, without end. Until that menu is in
                # its place the node can do without: it still boots its former kernel.
                if ends_trial:
                    self._disarm()

            with self._drop_in_written(text):
                self._generate(check)
        if found["origin"] != wanted["origin"]:
            write_durably(self._root / ORIGIN, (json.dumps({"release": wanted["origin"]}) + "\n").encode())
        self._set_next_entry("")
        if confirm and self.trial.get("release") == release:
            write_durably(self._root / CONFIRMED, f"{self.boot_id}\n".encode())
        if ends_trial:
            self._close()

    def arm(self, wanted: Mapping[str, str]) -> None:
        """Bring about what want_tried returned; what makes GRUB boot another kernel comes last."""
        if json.loads(wanted["trial"]) != self.trial:
            (self._root / STATE / "seen").unlink(missing_ok=True)
        for path, text in _wanted_files(wanted).items():
            write_durably(self._root / path, text.encode())
        for path, target in _links().items():
            link = self._root / path
            link.parent.mkdir(parents=True, exist_ok=True)
            if _link(link) != target:
                link.unlink(missing_ok=True)
                link.symlink_to(target)
                flush(link.parent)
        self._checked_run(["systemctl", "daemon-reload"])
        write_durably(self._root / STATE / "trial.json", (wanted["trial"] + "\n").encode())
        _flush(self._root / STATE)
        if wanted["kexec"]:
            self._load(wanted["kexec"])
        self._set_next_entry(wanted["next_entry"])

    def remove(self) -> None:
        """Take away everything of this collection."""
        self._disarm()  # whichever kernel the menu boots without this collection, no timer may return from it
        if (self._root / DROP_IN).exists():
            # The file stays, empty of settings, until the menu is made: where this is interrupted the next run sees it.
            with self._drop_in_written(_HEADING):
                self._generate(lambda menu: None)
            (self._root / DROP_IN).unlink()
            flush((self._root / DROP_IN).parent)
        self._set_next_entry("")
        for path in (ORIGIN, CONFIRMED):
            (self._root / path).unlink(missing_ok=True)
        self._close()

    def _disarm(self) -> None:
        """Take away the timer that would reboot the node."""
        present = [self._root / path for path in (*_links(), *_units("", 0)) if os.path.lexists(self._root / path)]
        if present:
            self._checked_run(["systemctl", "stop", TIMER])
            for path in present:
                path.unlink()
                flush(path.parent)
            self._checked_run(["systemctl", "daemon-reload"])

    def _close(self) -> None:
        """End a trial: first the timer, last the record of it."""
        self._disarm()
        if self._loaded():
            self._checked_run(["kexec", "-u"])
        directory = self._root / STATE
        for name in ("seen", "trial.json"):
            (directory / name).unlink(missing_ok=True)
        with suppress(OSError):
            directory.rmdir()

    @contextmanager
    def _drop_in_written(self, text: str) -> Iterator[None]:
        """Write the settings, and bring back what was there where what follows fails."""
        path = self._root / DROP_IN
        before = path.read_bytes() if path.exists() else None
        write_durably(path, text.encode())
        try:
            yield
        except BaseException:
            if before is None:
                path.unlink(missing_ok=True)
                flush(path.parent)
            else:
                write_durably(path, before)
            raise

    def _generate(self, check: Callable[[Menu], None]) -> None:
        """Make the menu anew beside the present one, check it, and only then put it in its place."""
        target = _followed(self._root, self._root / MENU)
        fresh = target.with_name(f"{target.name}.xpu-fleet")
        leftovers = [fresh, fresh.with_name(f"{fresh.name}.new")]
        try:
            for path in leftovers:
                path.unlink(missing_ok=True)
            self._checked_run(["grub-mkconfig", "-o", str(fresh)])
            if not fresh.is_file():
                raise BootError("grub-mkconfig made no menu")
            self._checked_run(["grub-script-check", str(fresh)])
            try:
                check(self._parsed(fresh.read_text(encoding="utf-8", errors="surrogateescape")))
            except MenuError as error:
                raise BootError(f"the new menu of GRUB is not as wanted, the present one stays: {error}") from error
            if target.exists():
                fresh.chmod(target.stat().st_mode & 0o777)
            put_in_place(fresh, target)
            _flush(target.parent)
        finally:
            for path in leftovers:
                path.unlink(missing_ok=True)

    def _check_default(self, menu: Menu, release: str, panic: str) -> None:
        """Raise MenuError where a menu does not boot a kernel as wanted."""
        wanted, default = menu.find(release), menu.default_entry()
        if default is not wanted:
            settings = Settings(settings_files(self._root / "etc"))
            setting = settings.get("GRUB_DEFAULT")
            origin = self._shown(setting.path) if setting else ""
            if origin in ("", f"/{DROP_IN}"):
                origin = menu.default_origin() or "another file"
            raise MenuError(f"{origin} overrides GRUB_DEFAULT of /{DROP_IN}: the default is {default} and not {wanted}")
        if panic and wanted.argument("panic") != panic:
            setting = Settings(settings_files(self._root / "etc")).get("GRUB_CMDLINE_LINUX")
            origin = self._shown(setting.path) if setting else "another file"
            found = wanted.argument("panic")
            raise MenuError(
                f"the entry {wanted} has {f'panic={found}' if found else 'no panic='} instead of panic={panic}; "
                f"GRUB_CMDLINE_LINUX was set last by {origin}"
            )

    def _set_next_entry(self, path: str) -> None:
        """Set or remove the entry of the next boot, in place: GRUB writes to the blocks that the file has."""
        if self.block.variables.get("next_entry", "") == path:
            return
        if path:
            self.block.set("next_entry", path)
        else:
            self.block.unset("next_entry")
        try:
            content = self.block.content()
        except BlockError as error:
            raise BootError(f"/{BLOCK}: {error}") from error
        file = self._root / BLOCK
        if not file.exists():
            write_durably(file, content)
        else:
            with file.open("r+b") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        _flush(file.parent)

    def _load(self, release: str) -> None:
        """Load a kernel for the next boot by kexec, with what its entry says."""
        entry = self._entry(release)
        # GRUB adds BOOT_IMAGE=, by which programs know the kernel's file.
        line = " ".join([f"BOOT_IMAGE={entry.kernels[0]}", *entry.arguments])
        command = ["kexec", "-a", "-l", str(self._boot_file(entry.kernels[0])), f"--command-line={line}"]
        if entry.initrds:
            command.append(f"--initrd={self._boot_file(entry.initrds[-1])}")
        self._checked_run(command)

    def _checked_run(self, command: list[str]) -> str:
        status, output, error = self._run(command)
        if status:
            lines = [line for line in f"{output}\n{error}".splitlines() if line.strip()]
            raise BootError(f"{' '.join(command[:3])} failed with status {status}: {' / '.join(lines[-10:])}")
        return output


def _units(release: str, seconds: int) -> dict[str, str]:
    """Return the texts of the units of a trial by their path."""
    texts = {
        TIMER: _RETURN_TIMER,
        "xpu-fleet-kernel-return.service": _RETURN_SERVICE,
        "xpu-fleet-kernel-seen.service": _SEEN_SERVICE,
    }
    return {
        f"{UNITS}/{name}": text.format(release=release, seconds=seconds, state=STATE) for name, text in texts.items()
    }


def _links() -> dict[str, str]:
    """Return the links that start them at boot, with what they point to."""
    names = (TIMER, "xpu-fleet-kernel-seen.service")
    return {f"{UNITS}/sysinit.target.wants/{name}": f"../{name}" for name in names}


def _wanted_files(wanted: Mapping[str, str]) -> dict[str, str]:
    return {path: wanted[f"/{path}"] for path in _units("", 0)}


def _link(path: Path) -> str:
    """Return what a symbolic link points to, "" where there is none."""
    return str(path.readlink()) if path.is_symlink() else ""


def _followed(root: Path, path: Path) -> Path:
    """Return the file at the end of symbolic links, whose absolute targets are below ``root``."""
    for _turn in range(10):
        if not path.is_symlink():
            break
        target = path.readlink()
        path = root / str(target).lstrip("/") if target.is_absolute() else path.parent / target
    return path


def _has_content(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _flush(directory: Path) -> None:
    """Write a file system out to where GRUB reads it.

    GRUB does not know journals: a renamed file is at its place for it only after the journal was written back. That is
    asked of ext4, whose kernel may be too old to offer it.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise BootError(f"{directory} cannot be written to the disk: {os.strerror(ctypes.get_errno())}")
        with suppress(OSError):
            fcntl.ioctl(descriptor, _EXT4_CHECKPOINT, struct.pack("I", 0))
    finally:
        os.close(descriptor)
