"""A script's exports are captured completely, and written so that systemd reads the same values."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.script_environment import (
    CLEAN,
    ScriptError,
    environment_file,
    exported_by,
)

SETVARS = r"""
echo ":: initializing oneAPI environment ..."
here=$(dirname "${BASH_SOURCE[0]}")
not_exported=1
export MKLROOT="$here/mkl/latest" PATH="$here/bin:$PATH" SETVARS_ARGS="$*"
export TRICKY='a "quoted" $HOME `id` \ back'"'"'s
second line' EMPTY=
helper() { :; }; export -f helper
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "one api/setvars.sh"
    path.parent.mkdir()
    path.write_text(SETVARS)
    return path


def test_only_what_the_script_exports_is_captured(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCL_ICD_VENDORS", "/stray")
    assert exported_by(script, ["--force"], 10) == {
        "MKLROOT": f"{script.parent}/mkl/latest",
        "PATH": f"{script.parent}/bin:{CLEAN['PATH']}",
        "SETVARS_ARGS": "--force",
        "TRICKY": 'a "quoted" $HOME `id` \\ back\'s\nsecond line',
        "EMPTY": "",
    }


def test_the_file_is_read_back_as_it_was(script: Path, tmp_path: Path) -> None:
    variables = exported_by(script, [], 10)
    file = tmp_path / "x.env"
    file.write_text(environment_file(variables))
    # systemd documents its quoting as the shell's, but for expansions, which the file must not trigger.
    read = subprocess.run(["sh", "-c", f'set -a; . "{file}"; exec env -0'], capture_output=True, check=True).stdout
    seen = dict(entry.split("=", 1) for entry in os.fsdecode(read).split("\0") if entry)
    assert {name: seen[name] for name in variables} == variables


def test_plain_values_stay_unquoted_and_sorted() -> None:
    assert environment_file({"B": "a b", "A": "/x:/y"}) == 'A=/x:/y\nB="a b"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [("echo no license >&2; return 3", "status 3: no license"), ("sleep 30", "did not end within 1 seconds")],
)
def test_a_script_that_fails_is_told(script: Path, text: str, message: str) -> None:
    script.write_text(text)
    with pytest.raises(ScriptError, match=message):
        exported_by(script, [], 1)
