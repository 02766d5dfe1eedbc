"""What a shell script exports, as an environment file that systemd reads.

Services source no scripts, so C(setvars.sh)'s exports are written to a file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.system.command import TIMED_OUT, result_of
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: What systemd sets for a service; a script's PATH is complete, as nothing expands it later.
CLEAN = {"HOME": "/root", "LANG": "C.UTF-8", "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
#: What a shell sets for itself.
_SHELL_OWN = {"_", "OLDPWD", "PWD", "SHLVL"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_PLAIN = re.compile(r"[A-Za-z0-9_@%+=:,./~-]*")


class ScriptError(FleetError):
    """The script failed, or exports what an environment file cannot hold."""


def exported_by(script: Path, arguments: list[str], seconds: float) -> dict[str, str]:
    """Return the variables that sourcing a script in a clean environment sets or changes.

    Raises ScriptError with the script's output if it fails or exceeds the time limit.
    """
    if not script.is_file():
        raise ScriptError(f"{script} is missing: install the packages that provide it")
    command = ["bash", "--noprofile", "--norc", "-c", 'script="$1"; shift; . "$script" "$@" >&2 && exec env -0']
    result = result_of(
        [*command, "bash", str(script), *arguments], CLEAN, clean=True, seconds=seconds, errors="surrogateescape"
    )
    if result.status == TIMED_OUT and not result.output:
        raise ScriptError(f"{script} did not end within {seconds:.0f} seconds")
    if result.status:
        output = os.fsencode(result.error).decode("utf-8", "replace").strip()
        raise ScriptError(f"{script} failed with status {result.status}: {output[-2000:] or 'no output'}")
    pairs = (entry.partition("=") for entry in result.output.split("\0") if entry)
    # Exported shell functions (BASH_FUNC_name%%) are for shells.
    return {
        name: value
        for name, _ignored, value in pairs
        if _NAME.fullmatch(name) and name not in _SHELL_OWN and CLEAN.get(name) != value
    }


def environment_file(variables: Mapping[str, str]) -> str:
    """Return the lines of a systemd EnvironmentFile, sorted by name, values quoted if necessary."""
    return "".join(f"{name}={_quoted(variables[name])}\n" for name in sorted(variables))


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    # Inside double quotes systemd, like a shell, lets a backslash escape only these.
    return '"' + re.sub(r'(["\\$`])', r"\\\1", value) + '"'
