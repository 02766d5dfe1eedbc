"""Playbook runs that can be watched while they go on, and killed at a chosen moment."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import yaml

ROOT = Path(__file__).resolve().parents[3]
#: Time limit of one run in seconds; emulated processors are slow, and two machines share the real ones.
RUN_TIMEOUT = 2400.0


@dataclass(frozen=True)
class Run:
    """The result of a run; ``status`` is below 0 if a signal ended it."""

    status: int
    output: str
    seconds: float = 0.0

    @property
    def failures(self) -> list[str]:
        """The messages of tasks that failed and were not ignored, in order."""
        return [text for text, ignored in _failures(self.output) if not ignored]

    @property
    def unreachable(self) -> bool:
        """Whether the run lost its machine."""
        return "UNREACHABLE!" in self.output

    def recap(self, word: str) -> int:
        """Return the sum of ``word=`` over the recap; -1 without a recap."""
        _, found, recap = self.output.rpartition("PLAY RECAP")
        counts = [int(count) for count in re.findall(rf"\b{word}=(\d+)", recap)]
        return sum(counts) if found and counts else -1

    @property
    def clean(self) -> bool:
        """Whether it succeeded."""
        return self.status == 0 and self.recap("failed") == 0 and self.recap("unreachable") == 0

    @property
    def says(self) -> str:
        """Its last message to the operator, on one line."""
        if self.status < 0:
            return "(killed)"
        if self.clean:
            return "ok"
        return " ".join((self.failures or ["(nothing)"])[-1].split())


def _failures(output: str) -> list[tuple[str, bool]]:
    """Return message and whether it was ignored, for each task that failed."""
    found = []
    for match in re.finditer(
        r"^fatal: \[.+?\]: (?:FAILED|UNREACHABLE)! => *\n((?:[ \t]+.*\n|\n(?=[ \t]))+)", output, re.M
    ):
        try:
            details = yaml.safe_load(match[1])
        except yaml.YAMLError:
            details = {}
        message = str(details.get("msg", "")) if isinstance(details, dict) else ""
        found.append((message or match[1].strip(), output[match.end() :].startswith("...ignoring")))
    return found


class Play:
    """A playbook run in progress."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start the command in a process group of its own; its output also goes to ``log``."""
        self._started = time.monotonic()
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._seen = 0  # lines already searched for earlier moments
        log.parent.mkdir(parents=True, exist_ok=True)
        self._process = subprocess.Popen(
            list(command),
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        threading.Thread(target=self._read, args=(log,), daemon=True).start()

    def _read(self, log: Path) -> None:
        assert self._process.stdout
        with log.open("a", encoding="utf-8") as copy:
            for line in self._process.stdout:
                copy.write(f"{time.monotonic() - self._started:7.1f} {line}")
                copy.flush()
                with self._news:
                    self._lines.append(line)
                    self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    def reaches(self, task: str, timeout: float = RUN_TIMEOUT) -> bool:
        """Wait until a task of that name begins, after those waited for before; False if the run ends first."""
        deadline = time.monotonic() + timeout
        with self._news:
            while True:
                while self._seen < len(self._lines):
                    line = self._lines[self._seen]
                    self._seen += 1
                    if is_task(line, task):
                        return True
                if self._ended or time.monotonic() > deadline:
                    return False
                self._news.wait(1.0)

    @property
    def ended(self) -> bool:
        """Whether the run has ended."""
        return self._ended

    def kill(self) -> None:
        """Kill the controller as a crash would: all its processes at once, without a word to the machine."""
        os.killpg(self._process.pid, signal.SIGKILL)

    def finish(self, timeout: float = RUN_TIMEOUT) -> Run:
        """Wait for the end and return the result; a run that takes too long is killed and counts as failed."""
        late = False
        try:
            self._process.wait(max(1.0, timeout))
        except subprocess.TimeoutExpired:
            late = True
            self.kill()
            self._process.wait()
        with self._news:
            # A background process with an open output must not delay the result.
            self._news.wait_for(lambda: self._ended, timeout=5.0)
            output = "".join(self._lines)
        status = 124 if late else self._process.returncode
        return Run(status, output, time.monotonic() - self._started)


def is_task(line: str, task: str) -> bool:
    """Tell whether an output line is the heading of that task, whatever its role."""
    match = re.match(r"TASK \[(?:\S+ : )?(.*)\] \*+$", line.rstrip())
    return bool(match and match[1] == task)


@dataclass(frozen=True)
class Operator:
    """An operator who runs playbooks against one machine, from an own inventory."""

    inventory: Path
    host: str
    logs: Path

    def start(
        self, playbook: str, log: str, variables: Optional[Mapping[str, Any]] = None, options: Sequence[str] = ()
    ) -> Play:
        """Start a run; its output is kept under ``log``."""
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "--inventory", str(self.inventory)]
        command += ["--limit", self.host, "--extra-vars", json.dumps(dict(variables or {})), *options, playbook]
        # Connections stay open for a while; those of an earlier run may lead to a former machine.
        sockets = tempfile.mkdtemp(prefix="xpu-", dir="/tmp")
        environment = {
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_FORCE_COLOR": "0",
            # Otherwise the heading of a task appears with its result, not at its beginning.
            "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "1",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": sockets,
            # A machine without power closes no connection.
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=60s"
            " -o ServerAliveInterval=3 -o ServerAliveCountMax=3",
            "ANSIBLE_TIMEOUT": "30",
            "PYTHONUNBUFFERED": "1",
        }
        return Play(command, environment, self.logs / f"{log}.log")
