"""Instances of a template unit reach the wanted state, through systemctl only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

#: Answers as systemctl: an instance runs where a file of its name is there.
SYSTEMCTL = """#!/bin/sh
echo "$*" >>{at}/log
for last; do :; done
case "$1" in
  show) if [ -e "{at}/$last" ]; then echo ActiveState=active; echo ExecMainStartTimestampMonotonic=1; fi
        echo UnitFileState=$([ -e "{at}/$last" ] && echo enabled || echo disabled) ;;
  list-units) ls {at} | grep '^xpuserve@' | sed 's/$/ loaded active running/' ;;
  start) [ ! -e {at}/failing ] || {{ echo 'Job for it failed' >&2; exit 1; }}
         touch "{at}/$last" ;;
  disable) rm -f "{at}/$last" ;;
esac
"""


class Systemd:
    """A systemd whose instances are files."""

    def __init__(self, directory: Path) -> None:
        self.at = directory
        for name, script in (("systemctl", SYSTEMCTL), ("journalctl", "#!/bin/sh\necho 'its last words'\n")):
            (directory / name).write_text(script.format(at=directory) if name == "systemctl" else script)
            (directory / name).chmod(0o755)

    def run(self, *instances: str, check: bool = False) -> dict[str, Any]:
        self.log.write_text("")
        return run_module(
            "service_instances", check=check, path=str(self.at), template="xpuserve", instances=list(instances)
        )

    @property
    def log(self) -> Path:
        return self.at / "log"

    def changes(self) -> list[str]:
        words = ("start", "restart", "enable", "disable", "daemon-reload")
        return [line for line in self.log.read_text().splitlines() if line.split()[0] in words]


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    return Systemd(tmp_path)


def test_instances_are_started_once_and_others_stopped(systemd: Systemd) -> None:
    foreseen = systemd.run("0", check=True)
    assert foreseen["changed"] and foreseen["started"] == ["xpuserve@0.service"] and systemd.changes() == []
    done = systemd.run("0")
    assert done["diff"] == foreseen["diff"] and (systemd.at / "xpuserve@0.service").exists()
    assert not systemd.run("0")["changed"] and systemd.changes() == []
    moved = systemd.run("1")
    assert (moved["started"], moved["stopped"]) == (["xpuserve@1.service"], ["xpuserve@0.service"])
    assert "disable --now xpuserve@0.service" in systemd.changes()


def test_one_that_does_not_start_is_told_with_its_last_words(systemd: Systemd) -> None:
    (systemd.at / "failing").touch()
    refused = systemd.run("0")
    assert refused["failed"] and "systemctl start xpuserve@0.service failed: Job for it failed" in refused["msg"]
    assert "its last words" in refused["msg"]
