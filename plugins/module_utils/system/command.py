"""Runs commands: everything that node-side code starts goes through here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: Exit statuses as a shell and timeout(1) give them.
NOT_FOUND = 127
TIMED_OUT = 124

#: Output is read by programs, in English, and nobody is there to answer a question.
PLAIN: Mapping[str, str] = MappingProxyType({"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"})
_ADMINISTRATION = "/usr/sbin:/usr/bin:/sbin:/bin"
_UNMET = "The following packages have unmet dependencies:"


class CommandError(FleetError):
    """dpkg, apt or another command failed; the message has what it said."""


class CommandResult(NamedTuple):
    """What came of a command."""

    status: int
    output: str
    error: str


#: Runs a command and returns status, output and errors; tests give another one.
Run = Callable[[list[str]], tuple[int, str, str]]


def result_of(
    command: Sequence[str],
    environment: Mapping[str, Optional[str]] = PLAIN,
    *,
    clean: bool = False,
    stdin: str = "",
    seconds: Optional[float] = None,
    errors: str = "replace",
) -> CommandResult:
    """Run a command without asking anybody.

    ENVIRONMENT is set beside the process's own, or with CLEAN instead of it; None takes a variable away. Commands that
    only root uses are found too. The status is 127 where the command cannot be started, and 124 where it took longer
    than SECONDS. ERRORS is what becomes of output that is no UTF-8.
    """
    path = ":".join(filter(None, [os.environ.get("PATH"), _ADMINISTRATION]))
    variables = {} if clean else {**os.environ, "PATH": path}
    for name, value in environment.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value
    try:
        # run_command needs an AnsibleModule; this is called without one, too.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            list(command),
            env=variables,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors=errors,
            timeout=seconds,
            cwd="/" if clean else None,
            check=False,
        )
    except FileNotFoundError:
        return CommandResult(NOT_FOUND, "", f"command not found: {command[0]}")
    except OSError as error:
        return CommandResult(NOT_FOUND, "", str(error))
    except subprocess.TimeoutExpired:
        return CommandResult(TIMED_OUT, "", f"not done after {seconds:g} seconds")
    return CommandResult(done.returncode, done.stdout, done.stderr)


def run_as_is(command: Sequence[str]) -> CommandResult:
    """Run a command in the language of this process: what it writes may be for people."""
    return result_of(command, {})


def run(
    command: Sequence[str], statuses: tuple[int, ...] = (0,), environment: Optional[Mapping[str, str]] = None
) -> str:
    """Run a command without asking anybody and return its output; raises CommandError with what it said."""
    result = result_of(command, {**PLAIN, **(environment or {})})
    if result.status not in statuses:
        said = complaints(f"{result.output}\n{result.error}")
        raise CommandError(f"{' '.join(command[:2])} failed with status {result.status}: {said}")
    return result.output


def complaints(output: str) -> str:
    """Return the errors in what apt, dpkg or another command printed, or the end of it, on one line."""
    return " / ".join(complaint_lines(output))


def complaint_lines(output: str) -> list[str]:
    """Return the errors in what a command printed, or the end of it."""
    unmet = []
    for line in output.partition(f"{_UNMET}\n")[2].splitlines():
        if not line.startswith(" "):
            break
        unmet.append(line.strip())
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if line.startswith(("E:", "dpkg: error"))]
    # After a package that it could not process, dpkg says why, and before it, the package's scripts what they met.
    why = {index + step for index in errors if lines[index].endswith(":") for step in (-2, -1, 1)}
    # What DKMS says stands further up, in the output of a package's script.
    built = [
        index for index, line in enumerate(lines) if line.startswith(("Error!", "Consult /")) or "make.log" in line
    ]
    shown = sorted(index for index in {*errors, *why, *built} if 0 <= index < len(lines))
    return list(dict.fromkeys([*unmet, *(lines[index] for index in shown)] or lines[-8:]))
