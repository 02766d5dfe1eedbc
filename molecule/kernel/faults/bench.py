"""Machines for faults, and the procedure: start from a snapshot, inject, run, check, repair, run again."""

from __future__ import annotations

import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from kernel.faults.catalogue import Act, After, Fault, Moment, Stage
from kernel.faults.play import ROOT, Operator, Play, Run
from kernel.faults.state import (
    Patient,
    ShellError,
    as_root,
    differences,
    look,
    unconverged,
    unfit,
    unproven,
    wanted,
)
from rig import cache
from rig.machine import READY, Machine

FLEET = "faults"
NETWORK = "10.77.14"
SCENARIO = Path(__file__).resolve().parents[1]
#: The layer that is a transaction (it includes the driver's modules), and the repository layer before it.
LAYERS = {Stage.BARE: "repository,kernel", Stage.INSTALLED: "kernel", Stage.CONVERGED: "kernel"}
BOOT_TIMEOUT = 420.0
#: Seconds before a machine without power is started again.
DARK = 3.0

#: Commands of an operator who upgrades everything, and then installs the newest kernel by name.
NEWER_KERNEL = r"""
sed -n 's/ jammy / jammy-updates /p' /etc/apt/sources.list > /etc/apt/sources.list.d/updates.list
test -s /etc/apt/sources.list.d/updates.list
export DEBIAN_FRONTEND=noninteractive
apt-get update
apt-get -y full-upgrade
apt-get -y install $(apt-cache depends linux-image-generic-hwe-22.04 | sed -n 's/.*Depends: \(linux-image-[0-9]\)/\1/p')
"""


@dataclass
class Outcome:
    """The result of a fault."""

    fault: Fault
    problems: list[str] = field(default_factory=list)
    machine: str = ""
    says: str = ""
    next_run: str = ""
    seconds: float = 0.0
    runs: list[float] = field(default_factory=list)


class Bench:
    """One machine and an operator who runs playbooks against it."""

    def __init__(self, fleet: str, machine: str, say: Callable[[str], None], reuse: bool = False) -> None:
        """Take the machine of that name; inventories and logs are kept with its fleet.

        With ``reuse`` the snapshots of an earlier bench are used.
        """
        self.name = machine
        folder = cache.RUN / fleet / "faults"
        self.machine = Machine.of(fleet, machine)
        self.say = say
        self.operator = Operator(write_inventory(folder / machine, fleet, machine), machine, folder / "logs")
        self.kept = folder / machine / "stages.json"
        # A new machine has no snapshots of the former one.
        self.made = self.machine.node.configured.stat().st_mtime_ns
        kept = json.loads(self.kept.read_text()) if reuse and self.kept.exists() else {}
        if kept.get("made") != self.made:
            kept = {"bare": {}, "saved": []}
        self.saved = {Stage(name) for name in kept["saved"]}
        self.bare: dict[str, Any] = kept["bare"]
        self.origin = self.bare["boot"]["kernel"] if self.bare else ""
        self.layers = ""

    # -- the machine ------------------------------------------------------------------------------------------------

    def adopt(self, bare: dict[str, Any]) -> None:
        """Save the present machine as stage bare; ``bare`` is its state, every file included."""
        self.bare, self.origin = bare, bare["boot"]["kernel"]
        self._keep(Stage.BARE)

    def begin(self, stage: Stage, lossy: bool = False) -> None:
        """Restore the machine to that stage; the first time, bring it there and save it."""
        if stage not in self.saved:
            self._bring(stage)
            self._keep(stage)
        self.layers = LAYERS[stage]
        # Skip write-backs that the restore would discard.
        self.machine.cut_power()
        self.machine.start(snapshot=stage.value, lossy=lossy)
        self.machine.wait(BOOT_TIMEOUT)

    def _keep(self, stage: Stage) -> None:
        self.machine.save(stage.value)
        self.saved.add(stage)
        saved = [stage.value for stage in self.saved]
        self.kept.write_text(json.dumps({"made": self.made, "bare": self.bare, "saved": saved}))

    def _bring(self, stage: Stage) -> None:
        if stage is Stage.BARE:
            self.machine.revert(READY)
            self.machine.wait(BOOT_TIMEOUT)
            self._must(self.play("prepare", playbook=str(SCENARIO / "prepare.yml"), options=()).finish())
            self.bare = look(self.machine, files=True)
            self.origin = self.bare["boot"]["kernel"]
            return
        before = Stage.BARE if stage is Stage.INSTALLED else Stage.INSTALLED
        self.begin(before)
        self.say(f"brings the machine to stage {stage.value}")
        if stage is Stage.INSTALLED:
            run = self.play("stage-installed", {"xpu_reboot": "never"}).finish()
            if "Pending: a reboot" not in run.output:
                raise BenchError(f"{self.name}: without consent to a reboot the run said: {run.says}")
        else:
            self._must(self.play("stage-converged").finish())
            problems = unconverged(look(self.machine))
            if problems:
                raise BenchError(f"{self.name} is not converged: {'; '.join(problems)}")
        self.say(f"is at stage {stage.value} ({run.seconds if stage is Stage.INSTALLED else 0:.0f} s)")

    def _must(self, run: Run) -> Run:
        if not run.clean:
            raise BenchError(f"{self.name}: a run that had to succeed said: {run.says}")
        return run

    def play(
        self,
        log: str,
        variables: dict[str, Any] | None = None,
        playbook: str = "playbooks/site.yml",
        options: Sequence[str] | None = None,
    ) -> Play:
        """Start a playbook run, limited to the relevant layers unless options are given."""
        options = ("--tags", self.layers) if options is None else options
        return self.operator.start(playbook, f"{self.name}-{log}", variables, options)

    def root(self, script: str, check: bool = True) -> str:
        """Run a shell script on the machine."""
        return as_root(Patient(self.machine), script, check)

    def console(self) -> str:
        """Return the serial console's text so far."""
        path = Path(self.machine.console)
        return path.read_text(errors="replace") if path.exists() else ""

    def settle(self) -> dict[str, Any]:
        """Wait until the machine answers and nothing would reboot it any more; return its state."""
        deadline = time.monotonic() + BOOT_TIMEOUT * 2
        while True:
            self.machine.wait(BOOT_TIMEOUT)
            try:
                state = look(self.machine)
            except ShellError:
                # It went down again during the check.
                if time.monotonic() > deadline:
                    raise
                continue
            # The timer's units stay until somebody confirms the kernel, or another one has booted.
            if not state["boot"]["armed"] or state["boot"]["kernel"] != wanted() or time.monotonic() > deadline:
                return state
            time.sleep(5.0)  # the machine tells nobody, and each look costs its emulated processor seconds

    # -- the procedure ----------------------------------------------------------------------------------------------

    def tell_story(self, faults: Sequence[Fault], open_end: bool = False) -> Iterator[Outcome]:
        """Inject faults one after the other, each run continuing from the end of the one before.

        With an open end the last of them has no run that must succeed: a caller makes that.
        """
        for number, fault in enumerate(faults):
            self.say(f"{fault.name}: {fault.title}")
            following = [fault.name for fault in faults[number + 1 :]] + ["the next run"] * open_end
            outcome = self.endure(fault, begin=number == 0, last=not following)
            if following and not outcome.next_run:
                outcome.next_run = f"goes on to {following[0]}"
            self._report(outcome)
            yield outcome

    def _report(self, outcome: Outcome) -> None:
        runs = ", ".join(f"{seconds:.0f}" for seconds in outcome.runs)
        verdict = "ok" if not outcome.problems else "FAILED"
        self.say(f"{outcome.fault.name}: {verdict} after {outcome.seconds:.0f} s (runs {runs} s)")
        for problem in outcome.problems:
            self.say(f"  {problem}")

    def endure(self, fault: Fault, *, begin: bool = True, last: bool = True) -> Outcome:
        """Inject one fault and check the result.

        In a story of several faults only the first begins with a snapshot, and only the last ends with a run that must
        succeed.
        """
        outcome, started = Outcome(fault), time.monotonic()
        try:
            if begin:
                self.begin(fault.start, lossy=True)
            if fault.procedure:
                getattr(self, fault.procedure)(outcome)
            else:
                try:
                    self._happen(fault, outcome)
                finally:
                    if fault.mend:
                        self.root(fault.mend)
            if last and not outcome.next_run:
                self._again(fault, outcome)
        except Exception as error:
            outcome.problems.append(f"{type(error).__name__}: {str(error)[-600:]}")
        outcome.seconds = time.monotonic() - started
        return outcome

    def _happen(self, fault: Fault, outcome: Outcome) -> None:
        if fault.inject:
            self.root(fault.inject)
        mark = len(self.console())
        play = self.play(f"{fault.name}-1")
        if fault.moment and not self._reach(play, fault.moment):
            outcome.problems.append(f"the run never came to the moment {fault.moment.title}")
        elif fault.act is Act.CUT:
            self.machine.cut_power()
            time.sleep(DARK)  # the fault itself: how long there is no power
            self.machine.start(lossy=True)
        elif fault.act is Act.KILL:
            play.kill()
        elif fault.act is Act.SCRIPT:
            self.root(fault.script)
        run = play.finish()
        outcome.runs.append(run.seconds)
        outcome.says = run.says
        state = self.settle()
        outcome.machine = f"answers on {state['boot']['kernel']}"
        outcome.problems += unfit(state) + unproven(state, self.origin)
        self._compare(fault, outcome, run, state, mark)

    def _compare(self, fault: Fault, outcome: Outcome, run: Run, state: dict[str, Any], mark: int) -> None:
        kernel = state["boot"]["kernel"]
        expected = {After.ORIGIN: [self.origin], After.WANTED: [wanted()], After.EITHER: [self.origin, wanted()]}
        if kernel not in expected[fault.after]:
            outcome.problems.append(f"it runs {kernel}, expected {fault.after.value}")
        if fault.succeeds != run.clean and fault.act is not Act.KILL:
            outcome.problems.append(f"the run {'ended well' if run.clean else 'failed'}: {run.says}")
        if fault.says and not re.search(fault.says, " ".join(run.output.split())):
            outcome.problems.append(f"the run does not say {fault.says!r} but {run.says!r}")
        trials = len(re.findall(rf"Linux version {wanted()}", self.console()[mark:]))
        if fault.trials is not None and trials != fault.trials:
            outcome.problems.append(f"it booted {wanted()} {trials} times, expected {fault.trials}")
        if fault.untouched:
            outcome.problems += differences(self.bare, look(self.machine, files=True))
        if fault.succeeds:
            outcome.problems += unconverged(state)
            outcome.next_run = "not needed"

    def _again(self, fault: Fault, outcome: Outcome) -> None:
        run = self.play(f"{fault.name}-2").finish()
        outcome.runs.append(run.seconds)
        outcome.next_run = f"converges, failed={run.recap('failed')}" if run.clean else f"fails: {run.says}"
        if not run.clean:
            outcome.problems.append(f"the next run fails: {run.says}")
        outcome.problems += unconverged(look(self.machine))

    def _reach(self, play: Play, moment: Moment) -> bool:
        for task in moment.tasks:
            if not play.reaches(task):
                return False
        if moment.console:
            mark = len(self.console())  # a boot before this task is not meant
            while not re.search(moment.console, self.console()[mark:]):
                if play.ended:
                    return False
                time.sleep(0.2)  # the console is a file
        # With a time limit: the run may have passed the moment already.
        ask = f"for i in $(seq 50); do if {moment.until}; then echo REACHED; exit; fi; sleep 0.4; done"
        while moment.until and "REACHED" not in self.root(ask):
            if play.ended:
                return False
        time.sleep(moment.delay)  # part of the fault: it strikes so long after the moment, in the task
        return not play.ended

    # -- procedures of their own ------------------------------------------------------------------------------------

    def newer_kernel(self, outcome: Outcome) -> None:
        """A newer kernel comes with an upgrade, and by name: the default and the holds remain."""
        held = look(self.machine)["packages"]["held"]
        self.root(NEWER_KERNEL)
        newer = [name for name in look(self.machine)["packages"]["installed"] if re.match(r"linux-image-6", name)]
        if not newer:
            outcome.problems.append("no newer kernel was installed")
        before = self.root("cat /proc/sys/kernel/random/boot_id")
        # Not at once: a command that cuts its own connection looks like one that never arrived.
        self.root("systemd-run --quiet --on-active=2 systemctl reboot")
        self._wait_for_boot(before)
        state = self.settle()
        outcome.machine = f"answers on {state['boot']['kernel']}, beside {', '.join(newer)}"
        if state["boot"]["kernel"] != wanted():
            outcome.problems.append(f"it runs {state['boot']['kernel']} after the upgrade")
        if not set(held) <= set(state["packages"]["held"]):
            outcome.problems.append("the upgrade lost holds")
        outcome.says = "(no run)"

    def rollback(self, outcome: Outcome) -> None:
        """Roll back to the machine's original kernel, packages and settings."""
        layers = ("--tags", "repository,kernel,driver")
        run = self.play("rollback-1", playbook="playbooks/rollback.yml", options=layers).finish()
        outcome.says = run.says
        outcome.runs.append(run.seconds)
        if not run.clean:
            outcome.problems.append(f"the way back fails: {run.says}")
        now = look(self.machine, files=True)
        outcome.machine = f"answers on {now['boot']['kernel']}"
        outcome.problems += unfit(now) + differences(self.bare, now)
        outcome.next_run = "not needed"

    def _wait_for_boot(self, before: str) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT
        while time.monotonic() < deadline:
            time.sleep(5.0)  # the machine that goes down answers a while still
            self.machine.wait(BOOT_TIMEOUT)
            if self.root("cat /proc/sys/kernel/random/boot_id").strip() != before.strip():
                return
        raise BenchError(f"{self.name} was not rebooted")


class BenchError(Exception):
    """A machine cannot be brought to a fault's starting point."""


def write_inventory(folder: Path, fleet: str, host: str) -> Path:
    """Write an inventory of one machine of a fleet, beside the scenario's variables for its machines."""
    facts = json.loads((cache.RUN / fleet / "facts.json").read_text())
    folder.mkdir(parents=True, exist_ok=True)
    known = {
        "ansible_host": facts["nodes"][host],
        "ansible_user": facts["ssh_user"],
        "ansible_ssh_private_key_file": facts["ssh_key"],
        "ansible_ssh_common_args": f"-o UserKnownHostsFile={facts['known_hosts']}",
        "rig_fleet": fleet,
    }
    (folder / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": {host: known}}}))
    link = folder / "group_vars"
    link.unlink(missing_ok=True)
    link.symlink_to(SCENARIO / "inventory/group_vars")
    return folder / "hosts.yml"


def up(count: int) -> list[str]:
    """Start the fleet with that many machines; return their names."""
    names = [f"f{number}" for number in range(1, count + 1)]
    platform = yaml.safe_load((SCENARIO / "molecule.yml").read_text())["platforms"][0]
    platforms = [
        {**platform, "name": name, "address": f"{NETWORK}.{10 + number}"} for number, name in enumerate(names, 1)
    ]
    nodes = cache.ROOT / f"{FLEET}.yml"
    nodes.write_text(yaml.safe_dump({"platforms": platforms}))
    _rig("up", "--fleet", FLEET, "--nodes", str(nodes))
    return names


def down() -> None:
    """Remove the fleet."""
    _rig("down", "--fleet", FLEET)


def _rig(*words: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "molecule")}
    subprocess.run([sys.executable, "-m", "rig", *words], env=environment, check=True)


def run_all(
    stories: Sequence[Sequence[Fault]], machines: Sequence[str], tell: Callable[[str], None], reuse: bool = False
) -> list[Outcome]:
    """Run the stories, each machine taking the next one; return the outcomes in the stories' order."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in range(len(stories)):
        waiting.put(number)
    outcomes: dict[int, list[Outcome]] = {}

    def work(machine: str) -> None:
        bench = Bench(FLEET, machine, lambda text: tell(f"{machine} {text}"), reuse)
        while True:
            try:
                number = waiting.get_nowait()
            except queue.Empty:
                return
            outcomes[number] = []
            for outcome in bench.tell_story(stories[number]):
                outcomes[number].append(outcome)

    threads = [threading.Thread(target=work, args=(machine,)) for machine in machines]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [outcome for number in sorted(outcomes) for outcome in outcomes[number]]


def run_on(
    place: str, stories: Sequence[Sequence[Fault]], tell: Callable[[str], None], reuse: bool = False
) -> list[Outcome]:
    """Run the stories on one machine of a running fleet; the caller makes the run after the last fault."""
    fleet, _, machine = place.partition("/")
    bench = Bench(fleet, machine, lambda text: tell(f"{machine} {text}"), reuse)
    return [outcome for story in stories for outcome in bench.tell_story(story, open_end=True)]
