"""An interrupted installation is finished, once, and not while another program installs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.apt import AptError, finish_installation, unfinished
from ansible_collections.xpu.fleet.tests.unit.plugins.module_run import run_module

DPKG = """#!/bin/sh
case "$*" in
  --audit)
    [ ! -e "{folder}/half" ] || printf 'The following packages are only half configured:\\n linux-image  a kernel\\n' ;;
  *--configure*)
    echo "dpkg $* ($DPKG_FRONTEND_LOCKED)" >> "{folder}/log"
    [ -e "{folder}/stubborn" ] && echo 'dpkg: error processing package linux-image (--configure):' >&2 && exit 1
    rm -f "{folder}/half" ;;
esac
"""
APT_GET = """#!/bin/sh
case "$*" in *install*) echo "apt-get" >> "{folder}/log" ;; esac
[ ! -e "{folder}/unmet" ] || {{ echo 'E: Unmet dependencies.' >&2; exit 100; }}
"""


class Dpkg:
    """Stand-ins for dpkg and apt-get, and a lock of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.updates, self.lock = folder, folder / "updates", folder / "lock"
        for name, text in (("dpkg", DPKG), ("apt-get", APT_GET)):
            (folder / name).write_text(text.format(folder=folder))
            (folder / name).chmod(0o755)

    def finish(self, timeout: int = 5) -> list[str]:
        return finish_installation(timeout, self.updates, self.lock)

    def has(self, *names: str) -> None:
        for name in names:
            (self.folder / name).touch()

    @property
    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def dpkg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Dpkg:
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return Dpkg(tmp_path)


def test_a_whole_node_is_only_asked(dpkg: Dpkg) -> None:
    result = run_module("dpkg_repair", path=str(dpkg.folder))
    assert (result["changed"], result["broken"], dpkg.log) == (False, [], [])


def test_check_mode_tells_and_changes_nothing(dpkg: Dpkg) -> None:
    dpkg.has("half", "unmet")
    result = run_module("dpkg_repair", path=str(dpkg.folder), check=True)
    assert result["changed"]
    assert result["broken"] == ["linux-image  a kernel", "E: Unmet dependencies."]
    assert dpkg.log == []


def test_what_is_half_configured_is_finished_under_the_lock(dpkg: Dpkg) -> None:
    dpkg.has("half")
    assert dpkg.finish() == []
    assert dpkg.log == ["dpkg --force-confdef --force-confold --configure -a (true)", "apt-get"]
    assert dpkg.finish() == []
    assert len(dpkg.log) == 2


def test_a_journal_of_dpkg_is_half_an_installation(dpkg: Dpkg) -> None:
    dpkg.updates.mkdir()
    assert unfinished(dpkg.updates) == []
    (dpkg.updates / "0001").touch()
    assert [str(dpkg.updates) in line for line in unfinished(dpkg.updates)] == [True]


def test_what_cannot_be_finished_is_said(dpkg: Dpkg) -> None:
    dpkg.has("half", "stubborn", "unmet")
    left = dpkg.finish()
    assert "linux-image  a kernel" in left
    assert "dpkg: error processing package linux-image (--configure):" in left
    assert left.count("E: Unmet dependencies.") == 1


def test_nothing_is_done_while_another_program_installs(dpkg: Dpkg) -> None:
    dpkg.has("half")
    program = (
        "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'w'), fcntl.LOCK_EX); print(flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", program, str(dpkg.lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout and holder.stdin
        holder.stdout.readline()
        with pytest.raises(AptError, match="another program installs packages"):
            dpkg.finish(timeout=0)
        holder.stdin.close()
    assert dpkg.log == []
