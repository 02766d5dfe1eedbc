"""A kernel on trial: its record, the timer that reboots out of it, and its outcome."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.boot.files import STATE, BootFiles
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import flush, write_back, write_durably

UNITS = "etc/systemd/system"
TIMER = "xpu-fleet-kernel-return.timer"
_RECORD = f"{STATE}/trial.json"
_SEEN = f"{STATE}/seen"
_SEEN_UNIT = "xpu-fleet-kernel-seen.service"
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
_UNITS = {
    TIMER: _RETURN_TIMER,
    "xpu-fleet-kernel-return.service": _RETURN_SERVICE,
    _SEEN_UNIT: _SEEN_SERVICE,
}
#: The links that start units at boot, with their targets.
_LINKS = {f"{UNITS}/sysinit.target.wants/{name}": f"../{name}" for name in (TIMER, _SEEN_UNIT)}


@dataclass(frozen=True)
class Trial:
    """The record of a kernel that boots once."""

    release: str
    origin: str  # the kernel that ran when the trial was set up: the node returns to it
    boot_id: str  # the boot in which the trial was set up
    attempt: int = 1
    confirm_timeout: int = 0  # seconds
    method: str = ""  # grubenv or kexec

    @classmethod
    def of(cls, record: Any) -> Optional[Trial]:
        """Read a trial from JSON, None for an empty text. Raises ValueError."""
        if record == {}:
            return None
        if not isinstance(record, dict) or not {"release", "origin", "boot_id"} <= record.keys():
            raise ValueError("a required field is missing")
        return cls(**{name: record[name] for name in cls.__dataclass_fields__ if name in record})

    def text(self) -> str:
        """Return the content of the file, without the line end."""
        return json.dumps(asdict(self), indent=2, sort_keys=True)


@dataclass(frozen=True)
class TrialState:
    """Files of a trial on the node: units and links by path, "" for missing ones."""

    units: Mapping[str, str]
    links: Mapping[str, str]
    record: Optional[Trial] = None
    #: The content of a damaged record.
    damaged: str = ""
    #: The kernel that kexec has loaded.
    kexec: str = ""

    @classmethod
    def none(cls) -> TrialState:
        """Return the state without a trial."""
        return cls({f"{UNITS}/{name}": "" for name in _UNITS}, dict.fromkeys(_LINKS, ""))


class TrialFiles:
    """The trial of a node: read once, set up, and closed."""

    def __init__(self, place: BootFiles) -> None:
        self._place = place
        self.record: Optional[Trial] = None
        self.damage: list[str] = []
        try:
            self.record = Trial.of(json.loads(place.text(_RECORD) or "{}"))
        except ValueError as error:
            self.damage.append(f"/{_RECORD} is damaged: {error}")

    def state(self) -> TrialState:
        """Return the present state."""
        return TrialState(
            units={path: self._place.text(path) for path in _units("", 0)},
            links={path: self._place.link(path) for path in _LINKS},
            record=self.record,
            damaged="" if self.record else self._place.text(_RECORD),
            kexec=self.record.release if self.record and self._loaded() else "",
        )

    def wanted(self, trial: Trial) -> TrialState:
        """Return the state in which a kernel is on trial."""
        return TrialState(
            units=_units(trial.release, trial.confirm_timeout),
            links=_LINKS,
            record=trial,
            kexec=trial.release if trial.method == "kexec" else "",
        )

    def _loaded(self) -> bool:
        """Tell whether kexec has loaded the kernel of a trial."""
        loaded = self._place.text("sys/kernel/kexec_loaded").strip() == "1"
        return loaded and self.record is not None and self.record.method == "kexec"

    def returns_from(self, release: str) -> bool:
        """Tell whether the timer would reboot the node while this kernel runs."""
        return f"ConditionKernelVersion={release}" in self._place.text(f"{UNITS}/{TIMER}").splitlines()

    def outcome(self, running: str, boot_id: str, *, entry_left: bool) -> tuple[str, str]:
        """Return the outcome, armed, running or fell_back, and a sentence. ENTRY_LEFT: GRUB has not booted it."""
        trial = self.record
        if trial is None:
            return "", ""
        release = trial.release
        if trial.boot_id == boot_id:
            return "armed", f"kernel {release} boots once, at the next boot"
        if running == release:
            return "running", f"kernel {release} runs on trial and is not confirmed yet"
        seen = self._place.text(_SEEN).split()
        if len(seen) == 2 and seen[1] == release:
            return "fell_back", (
                f"kernel {release} came up, but was not confirmed within {trial.confirm_timeout} s (no network, or no "
                "controller): the node returned by itself"
            )
        if trial.method == "grubenv" and entry_left:
            return "fell_back", (
                f"kernel {release} was not booted: power was lost, or the node restarted, before GRUB took its entry"
            )
        return "fell_back", (
            f"kernel {release} was booted once and never reached systemd (a panic, no root file system, or a power cut)"
        )

    def arm(self, wanted: TrialState) -> None:
        """Write every file of a trial, but do not yet make the node boot its kernel."""
        root = self._place.root
        if wanted.record != self.record:
            (root / _SEEN).unlink(missing_ok=True)
        for path, text in wanted.units.items():
            write_durably(root / path, text.encode())
        for path, target in wanted.links.items():
            link = root / path
            link.parent.mkdir(parents=True, exist_ok=True)
            if self._place.link(path) != target:
                link.unlink(missing_ok=True)
                link.symlink_to(target)
                flush(link.parent)
        self._place.checked_run(["systemctl", "daemon-reload"])
        if wanted.record:
            write_durably(root / _RECORD, f"{wanted.record.text()}\n".encode())
        write_back(root / STATE)

    def disarm(self) -> None:
        """Remove the timer that would reboot the node."""
        root = self._place.root
        present = [root / path for path in (*_LINKS, *_units("", 0)) if os.path.lexists(root / path)]
        if present:
            self._place.checked_run(["systemctl", "stop", TIMER])
            for path in present:
                path.unlink()
                flush(path.parent)
            self._place.checked_run(["systemctl", "daemon-reload"])

    def close(self) -> None:
        """End a trial: remove the timer first, the record last."""
        self.disarm()
        if self._loaded():
            self._place.checked_run(["kexec", "-u"])
        for name in (_SEEN, _RECORD):
            (self._place.root / name).unlink(missing_ok=True)
        with suppress(OSError):
            Path(self._place.root / STATE).rmdir()


def _units(release: str, seconds: int) -> dict[str, str]:
    """Return the texts of the units of a trial by their path."""
    return {
        f"{UNITS}/{name}": text.format(release=release, seconds=seconds, state=STATE) for name, text in _UNITS.items()
    }
