"""A running ansible-playbook that can be killed at a task."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path


class Controller:
    """A run; `output` is its output so far."""

    task_seconds = 600.0  # time limit until a task begins
    run_seconds = 600.0  # time limit until the end

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], folder: Path) -> None:
        self.output = ""
        self._news = threading.Condition()
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            # Show a task at its beginning, not with its first result.
            env={**environment, "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "true"},
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            with self._news:
                self.output += line
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def comes_to(self, task: str) -> None:
        """Wait until that task begins."""
        with self._news:
            self._news.wait_for(lambda: self._has_begun(task) or self._process.poll() is not None, self.task_seconds)
        assert self._has_begun(task), self.output

    def kill(self) -> None:
        """Kill the run and all its local processes, as the loss of its machine would."""
        # Another process may have the number of one that has ended.
        if self._process.poll() is None:
            _end(self._process.pid)
            self._process.wait()

    def end(self) -> int:
        """Wait for its end, and return its status."""
        status = self._process.wait(self.run_seconds)
        self._reader.join(60)
        return status

    def _has_begun(self, task: str) -> bool:
        return f"TASK [{task}]" in self.output


def _end(process: int) -> None:
    """Kill a process and all below it: Ansible's workers have their own sessions."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found = [process]
    for each in found:
        found += parents.get(each, [])
        with suppress(ProcessLookupError):
            os.kill(each, signal.SIGKILL)
