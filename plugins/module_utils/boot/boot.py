"""Which kernel a node boots: now, by default, and once on trial.

Nothing changes before everything was read and checked. The order of changes lets a node lose its power, or its
connection, between any two steps and still boot a kernel that has run on it before.
"""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.boot.files import (
    CONFIRMED,
    DROP_IN,
    ORIGIN,
    BootError,
    BootFiles,
)
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub import STAYS, Grub
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_writer import GrubWriter, drop_in
from ansible_collections.xpu.fleet.plugins.module_utils.boot.trial import Trial, TrialFiles, TrialState
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import Run, run_as_is
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import write_durably

_KEXEC = 0xD  # among the boot loaders' numbers in the kernel's boot protocol


@dataclass(frozen=True)
class BootState:
    """All that a change sets; comparing two states gives the difference."""

    #: Path of GRUB's default entry, "" if it cannot be known, None if other settings decide.
    default: Optional[str]
    #: Seconds until its kernel reboots after a panic, "" for never.
    panic: str
    #: Path of the entry for the next boot only, "" without one.
    next_entry: str
    #: Kernels whose menu entries lack an initramfs that exists now.
    lacking: tuple[str, ...]
    #: This collection's settings, "" without them.
    drop_in: str
    trial: TrialState
    #: The kernel that ran before the first change, "" before that.
    origin: str


class Boot:
    """Decides the next boots of a node whose files are below ``root``."""

    def __init__(self, root: Path = Path("/"), run: Run = run_as_is) -> None:
        """Read everything; missing or damaged files are no error here."""
        place = BootFiles(root, run)
        self._place = place
        self.running = place.text("proc/sys/kernel/osrelease").strip()
        self.boot_id = place.text("proc/sys/kernel/random/boot_id").strip()
        self.by_grub = any(word.startswith("BOOT_IMAGE=") for word in place.text("proc/cmdline").split())
        #: Its command line looks like GRUB's, but GRUB has not booted it.
        self.by_kexec = int(place.text("proc/sys/kernel/bootloader_type").strip() or 0) >> 4 == _KEXEC
        self.grub = Grub(place)
        self._writer = GrubWriter(place, self.grub)
        self._trial = TrialFiles(place)
        self.origin = self._read_origin()

    def _read_origin(self) -> str:
        with suppress(ValueError, TypeError, KeyError):
            return str(json.loads(self._place.text(ORIGIN))["release"])
        return ""

    # --------------------------------------------------------------------------------------------------------- facts

    def facts(self) -> dict[str, Any]:
        """Return all facts; ``problems`` has what prevents a change."""
        grub, default = self.grub, self.grub.default_entry()
        return {
            "running": self.running,
            "boot_id": self.boot_id,
            "grub": self.by_grub,
            "kexec": self.by_kexec,
            "entries": [
                {"title": entry.title, "path": entry.path, "release": entry.release, "recovery": entry.recovery}
                for entry in (grub.menu.all_entries() if grub.menu else ())
            ],
            "default": default.release if default else "",
            "default_path": default.path if default else "",
            "next": grub.next_release(),
            "block": {"writable": not grub.unwritable, "reason": grub.unwritable},
            "method": self.method(),
            "own": (self._place.root / DROP_IN).exists(),
            "follows": grub.follows(self.running),
            "origin": self.origin,
            "trial": self._trial_facts(),
            "default_untried": bool(self.boot_id) and self._place.text(CONFIRMED).strip() == self.boot_id,
            "problems": self._problems(),
            "notes": [*self._trial.damage, *grub.notes()],
        }

    def method(self) -> str:
        """Return how to boot a kernel once: by grubenv, by kexec, or "" for not at all."""
        if not self.grub.unwritable:
            return "grubenv"
        loaded = (self._place.root / "sys/kernel/kexec_loaded").exists()
        return "kexec" if loaded and self._place.run(["kexec", "--version"])[0] == 0 else ""

    def _problems(self) -> list[str]:
        """Return what prevents any change, or a single boot."""
        problems = self.grub.problems(self.by_grub)
        if not self.method():
            problems.append(f"no kernel can be booted once: {self.grub.unwritable}, and there is no kexec")
        return list(dict.fromkeys(problems))

    def _trial_facts(self) -> dict[str, Any]:
        record = self._trial.record
        if not record:
            return {}
        entry_left = bool(self.grub.block.variables.get("next_entry"))
        outcome, explanation = self._trial.outcome(self.running, self.boot_id, entry_left=entry_left)
        return {
            "release": record.release,
            "origin": record.origin,
            "attempt": record.attempt,
            "outcome": outcome,
            "explanation": explanation,
        }

    # -------------------------------------------------------------------------------------------------------- states

    def state(self) -> BootState:
        """Return the present state."""
        entry = self.grub.default_entry()
        return BootState(
            default=entry.path if entry else "",
            panic=entry.argument("panic") if entry else "",
            next_entry=self.grub.block.variables.get("next_entry", ""),
            lacking=tuple(self.grub.without_initramfs()),
            drop_in=self._place.text(DROP_IN),
            trial=self._trial.state(),
            origin=self.origin,
        )

    def want_default(self, release: str, panic: int, confirm: bool) -> BootState:
        """Return the state with a kernel as the default. Raises BootError if it cannot be reached."""
        if not self.by_grub or (self.grub.menu and self.grub.menu.boot_loader_spec):
            raise BootError("; ".join(self.grub.common_problems(self.by_grub)))
        if confirm and release != self.running:
            raise BootError(f"kernel {release} cannot be confirmed: kernel {self.running} runs")
        state = self.state()
        entry = self.grub.entry(release)
        others = self.grub.other_panic()
        if panic and others == "0":
            raise BootError(STAYS)
        return BootState(
            default=entry.path,
            panic=others or (str(panic) if panic else ""),
            next_entry="",
            lacking=(),
            drop_in=drop_in(entry.path, 0 if others else panic),
            trial=TrialState.none() if self._ends_trial(release, confirm) else state.trial,
            origin=self.origin or self.running,
        )

    def want_once(self, release: str, confirm_timeout: int) -> BootState:
        """Return the state with a kernel for one boot. Raises BootError if that is not safe."""
        state = self.state()
        if release == self.running:
            return state
        method = self.method()
        problems = self.grub.common_problems(self.by_grub)
        problems += self.grub.trial_problems(release, self.running, by_next_entry=method == "grubenv")
        if not method:
            reason = f"{self.grub.unwritable}, and kexec is not installed (package kexec-tools) or not possible"
            problems.append(reason)
        if problems:
            raise BootError(f"kernel {release} cannot be booted on trial: {'; '.join(dict.fromkeys(problems))}")
        before = self._trial.record
        attempt = 0
        if before and before.release == release:
            attempt = before.attempt - (before.boot_id == self.boot_id)
        trial = Trial(release, self.running, self.boot_id, attempt + 1, confirm_timeout, method)
        entry = self.grub.entry(release)
        return replace(state, next_entry=entry.path if method == "grubenv" else "", trial=self._trial.wanted(trial))

    def want_absent(self) -> BootState:
        """Return the state without this collection's settings."""
        wanted = replace(self.state(), trial=TrialState.none(), next_entry="", origin="")
        if (self._place.root / DROP_IN).exists():
            wanted = replace(wanted, default=None, panic=self.grub.other_panic(), drop_in="")
        return wanted

    def want_followed(self, release: str) -> BootState:
        """Return the state in which GRUB's other settings decide again, and boot a kernel.

        If they would boot another one, or its trial is still open, the state stays the same.
        """
        state = self.state()
        if not state.drop_in or self._trial.record or not self.grub.follows(release):
            return state
        return replace(state, default=None, panic=self.grub.other_panic(), drop_in="")

    def _ends_trial(self, release: str, confirm: bool) -> bool:
        return confirm or self._trial.returns_from(release)

    # -------------------------------------------------------------------------------------------------------- acting

    def make_default(self, release: str, wanted: BootState, *, confirm: bool) -> None:
        """Reach the state of want_default."""
        found = self.state()
        ends_trial = self._ends_trial(release, confirm)
        if replace(found, next_entry="", trial=wanted.trial, origin=wanted.origin) != wanted:
            # A timer beside the new menu would reboot each boot of its default, endlessly. The node does not need it
            # before that menu is in place: it still boots its former kernel.
            before = self._trial.disarm if ends_trial else lambda: None
            self._writer.set_default(wanted.drop_in, release, wanted.panic, before)
        if found.origin != wanted.origin:
            self._write(ORIGIN, json.dumps({"release": wanted.origin}))
        self._writer.set_next_entry("")
        if confirm and self._trial.record and self._trial.record.release == release:
            self._write(CONFIRMED, self.boot_id)
        if ends_trial:
            self._trial.close()

    def arm(self, wanted: BootState) -> None:
        """Reach the state of want_once; the step that makes GRUB boot another kernel is the last."""
        self._trial.arm(wanted.trial)
        if wanted.trial.kexec:
            self._load(wanted.trial.kexec)
        self._writer.set_next_entry(wanted.next_entry)

    def follow(self, release: str) -> None:
        """Reach the state of want_followed."""
        self._writer.unset_default(release)

    def remove(self) -> None:
        """Remove everything of this collection."""
        self._trial.disarm()  # no timer may return from the kernel that the menu boots without this collection
        self._writer.unset_default()
        self._writer.set_next_entry("")
        for path in (ORIGIN, CONFIRMED):
            (self._place.root / path).unlink(missing_ok=True)
        self._trial.close()

    def _write(self, path: str, text: str) -> None:
        write_durably(self._place.root / path, f"{text}\n".encode())

    def _load(self, release: str) -> None:
        """Load a kernel for the next boot by kexec, with the arguments of its entry."""
        entry = self.grub.entry(release)
        # GRUB adds BOOT_IMAGE=, from which programs learn the kernel's file.
        line = " ".join([f"BOOT_IMAGE={entry.kernels[0]}", *entry.arguments])
        command = ["kexec", "-a", "-l", str(self._place.boot_file(entry.kernels[0])), f"--command-line={line}"]
        if entry.initrds:
            command.append(f"--initrd={self._place.boot_file(entry.initrds[-1])}")
        self._place.checked_run(command)
