"""Instances of a systemd template unit: existing and wanted ones, and the steps between."""

from __future__ import annotations

import glob
import os
import pwd
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.system.command import result_of
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

Runner = Callable[[Sequence[str]], "tuple[int, str]"]
_WANTS = "/etc/systemd/system"
_PROPERTIES = "ActiveState,SubState,UnitFileState,NeedDaemonReload,ExecMainStartTimestampMonotonic,MainPID,User"


class ServiceError(FleetError):
    """The service did not start or stop as requested; the message has the end of its journal."""


@dataclass(frozen=True)
class Instance:
    """State of one unit. ``started`` is the wall clock time of its start in seconds, 0 where it does not run.

    ``outdated`` is whether its files changed since systemd read them, ``regrouped`` whether its process has
    other groups than its user has now: a process keeps those of its start.
    """

    name: str
    enabled: bool
    active: str
    started: float
    masked: bool = False
    outdated: bool = False
    regrouped: bool = False


@dataclass(frozen=True)
class Steps:
    """The steps to do, by instance."""

    unmask: list[str] = field(default_factory=list)
    reload: list[str] = field(default_factory=list)
    enable: list[str] = field(default_factory=list)
    start: list[str] = field(default_factory=list)
    restart: list[str] = field(default_factory=list)
    stop: list[str] = field(default_factory=list)

    @property
    def any(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.unmask or self.reload or self.enable or self.start or self.restart or self.stop)


def run(command: Sequence[str]) -> tuple[int, str]:
    """Run COMMAND; exit status and all output."""
    result = result_of(command)
    return result.status, result.output + result.error


def newest(paths: Iterable[str]) -> float:
    """The latest change of PATHS (or patterns), by the wall clock in seconds; missing ones do not count."""
    times = [Path(found).stat().st_mtime for path in paths for found in glob.glob(path)]  # noqa: PTH207 - absolute patterns
    return max(times, default=0.0)


def read(runner: Runner, name: str, *, now: float, monotonic: float, proc: Path = Path("/proc")) -> Instance:
    """Read the state of a unit. Raises ServiceError if systemd does not answer."""
    status, output = runner(["systemctl", "show", f"--property={_PROPERTIES}", name])
    if status != 0:
        raise ServiceError(f"systemctl show {name} failed ({output.strip()}): the service needs a node with systemd")
    values = dict(line.split("=", 1) for line in output.splitlines() if "=" in line)
    began = int(values.get("ExecMainStartTimestampMonotonic") or 0) / 1e6
    active = values.get("ActiveState", "inactive")
    waiting = values.get("SubState") == "auto-restart"  # it ended and restarts soon
    running = active in ("active", "activating", "reloading") and began > 0 and not waiting
    state = values.get("UnitFileState", "")
    started = now - monotonic + began if running else 0.0
    return Instance(
        name,
        enabled=state == "enabled",
        active=active,
        started=started,
        masked=state.startswith("masked"),
        outdated=values.get("NeedDaemonReload") == "yes",
        regrouped=running and _regrouped(proc / values.get("MainPID", "0") / "status", values.get("User", "")),
    )


def _regrouped(status: Path, user: str) -> bool:
    """Whether a process has other groups than its user."""
    try:
        has = re.search(r"^Groups:(.*)$", status.read_text(encoding="ascii", errors="replace"), re.MULTILINE)
        wanted = os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except (OSError, KeyError):
        return False  # it has ended meanwhile, or its user is gone: the start reports that
    return has is not None and {int(number) for number in has[1].split()} != set(wanted)


def present(runner: Runner, template: str, directory: str = _WANTS) -> set[str]:
    """Names of the template's instances that systemd has loaded or starts at boot."""
    _ignored, output = runner(
        ["systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", f"{template}@*.service"]
    )
    units = {line.split()[0] for line in output.splitlines() if line.split()}
    units |= {path.name for path in Path(directory).glob(f"*.wants/{template}@*.service")}
    return {unit for unit in units if re.fullmatch(rf"{re.escape(template)}@[^@]+\.service", unit)}


def decide(wanted: Sequence[Instance], others: Iterable[str], changed_at: float) -> Steps:
    """The steps so that WANTED run with everything as it is since CHANGED_AT, and no OTHERS run."""
    # A removed file has no time. What runs was started with the files that systemd had read before.
    old = [u.name for u in wanted if u.started and (u.outdated or u.regrouped or u.started < changed_at)]
    return Steps(
        unmask=[unit.name for unit in wanted if unit.masked],
        reload=[unit.name for unit in wanted if unit.outdated],
        enable=[unit.name for unit in wanted if not unit.enabled],
        # Starting a loading instance waits for it.
        start=[u.name for u in wanted if not u.started or (u.active == "activating" and u.name not in old)],
        restart=old,
        stop=sorted(others),
    )


def plan(runner: Runner, template: str, instances: Sequence[str], inputs: Sequence[str]) -> Steps:
    """Read the states and decide. Raises ServiceError."""
    now, monotonic = time.time(), time.clock_gettime(time.CLOCK_MONOTONIC)
    names = [f"{template}@{instance}.service" for instance in instances]
    wanted = [read(runner, name, now=now, monotonic=monotonic) for name in names]
    return decide(wanted, present(runner, template) - set(names), newest(inputs))


def carry_out(runner: Runner, steps: Steps) -> None:
    """Run the steps; a start waits until the service is ready. Raises ServiceError with the journal's end."""
    if steps.unmask:
        # Masked at runtime only, or permanently: both masks go.
        for options in ([], ["--runtime"]):
            _must(runner, ["systemctl", *options, "unmask", *steps.unmask])
    _must(runner, ["systemctl", "daemon-reload"])
    if steps.stop:
        _must(runner, ["systemctl", "disable", "--now", *steps.stop])
        runner(["systemctl", "reset-failed", *steps.stop])
    if steps.enable:
        _must(runner, ["systemctl", "enable", *steps.enable])
    for verb, units in (("start", steps.start), ("restart", steps.restart)):
        if not units:
            continue
        runner(["systemctl", "reset-failed", *units])
        began = time.time()
        status, output = runner(["systemctl", verb, *units])
        if status != 0:
            raise ServiceError(
                f"systemctl {verb} {' '.join(units)} failed: {output.strip()}\n{last_words(runner, units, began)}"
            )


def last_words(runner: Runner, units: Sequence[str], since: float, lines: int = 30) -> str:
    """The end of the journal of UNITS since a time, in seconds of the wall clock."""
    selected = [f"--unit={unit}" for unit in units]
    command = ["journalctl", "--no-pager", "--output=cat", f"--lines={lines}", f"--since=@{int(since)}", *selected]
    return runner(command)[1].strip()


def _must(runner: Runner, command: Sequence[str]) -> None:
    status, output = runner(command)
    if status != 0:
        raise ServiceError(f"{' '.join(command)} failed: {output.strip()}")
