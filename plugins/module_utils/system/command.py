"""Runs commands: all node-side code starts processes here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Optional

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: Exit statuses of a shell and of timeout(1).
NOT_FOUND = 127
TIMED_OUT = 124

#: Programs parse the output, so it is in English; nobody is there to answer a question.
PLAIN: Mapping[str, str] = MappingProxyType({"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"})
_ADMINISTRATION = "/usr/sbin:/usr/bin:/sbin:/bin"
_UNMET = "The following packages have unmet dependencies:"


class CommandError(FleetError):
    """dpkg, apt or another command failed; the message has its output."""


class CommandResult(NamedTuple):
    """The result of a command."""

    status: int
    output: str
    error: str


#: Runs a command and returns status, output and errors; tests pass a fake.
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
    """Run a command without prompts.

    ENVIRONMENT is added to the process's own, or replaces it with CLEAN; None removes a variable. Commands in
    root's directories are found too. The status is 127 if the command cannot be started, and 124 if it exceeds
    SECONDS. ERRORS says how to decode output that is no UTF-8.
    """
    path = ":".join(filter(None, [os.environ.get("PATH"), _ADMINISTRATION]))
    variables = {} if clean else {**os.environ, "PATH": path}
    for name, value in environment.items():
        if value is None:
            variables.pop(name, None)
        else:
            variables[name] = value
    try:
        # run_command needs an AnsibleModule; this runs without one, too.
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
    """Run a command in this process's language: its output may be for people."""
    return result_of(command, {})


def run(
    command: Sequence[str], statuses: tuple[int, ...] = (0,), environment: Optional[Mapping[str, str]] = None
) -> str:
    """Run a command without prompts and return its output. Raises CommandError with its output."""
    result = result_of(command, {**PLAIN, **(environment or {})})
    if result.status not in statuses:
        said = complaints(f"{result.output}\n{result.error}")
        raise CommandError(f"{' '.join(command[:2])} failed with status {result.status}: {said}")
    return result.output


def complaints(output: str) -> str:
    """Return the errors in the output of apt, dpkg or another command, or its end, on one line."""
    return " / ".join(complaint_lines(output))


def complaint_lines(output: str) -> list[str]:
    """Return the errors in a command's output, or its end."""
    unmet = []
    for line in output.partition(f"{_UNMET}\n")[2].splitlines():
        if not line.startswith(" "):
            break
        unmet.append(line.strip())
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [index for index, line in enumerate(lines) if line.startswith(("E:", "dpkg: error"))]
    # dpkg gives its reason after the package that failed; the package's scripts print theirs before it.
    why = {index + step for index in errors if lines[index].endswith(":") for step in (-2, -1, 1)}
    # DKMS's messages are further up, in the output of a package's script.
    built = [
        index for index, line in enumerate(lines) if line.startswith(("Error!", "Consult /")) or "make.log" in line
    ]
    shown = sorted(index for index in {*errors, *why, *built} if 0 <= index < len(lines))
    return list(dict.fromkeys([*unmet, *(lines[index] for index in shown)] or lines[-8:]))
