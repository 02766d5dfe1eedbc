"""Holds are read once, compared, and set at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import apt_locked, run_module

APT_MARK = """#!/bin/sh
case "$1" in
  showhold) cat "{state}" ;;
  hold) shift; printf '%s\\n' "$@" >> "{state}"; echo "$@" >> "{log}" ;;
  unhold) shift; for name; do grep -vxF "$name" "{state}" > "{state}.new"; mv "{state}.new" "{state}"; done ;;
esac
[ "$1" != unknown ] || {{ echo 'E: Unable to locate package unknown' >&2; exit 100; }}
"""


class AptMark:
    """A stand-in for apt-mark, which would hold packages of this machine."""

    def __init__(self, directory: Path) -> None:
        self.path, self.state, self.log = str(directory), directory / "state", directory / "log"
        self.state.write_text("other\n")
        command = directory / "apt-mark"
        command.write_text(APT_MARK.format(state=self.state, log=self.log))
        command.chmod(0o755)

    def run(self, **arguments: Any) -> dict[str, Any]:
        """Run the module where these stand-ins are."""
        return run_module("apt_holds", path=self.path, at=self.state.parent, **arguments)


@pytest.fixture
def apt_mark(tmp_path: Path) -> AptMark:
    return AptMark(tmp_path)


def test_holds_are_set_in_one_go_and_once(apt_mark: AptMark) -> None:
    packages = ["level-zero", "intel-opencl-icd"]
    foreseen = apt_mark.run(check=True, packages=packages)
    assert foreseen["changed"] and not apt_mark.log.exists()
    assert foreseen["diff"]["after"] == "intel-opencl-icd\nlevel-zero\n"
    assert apt_mark.run(packages=packages)["packages"] == sorted(packages)
    assert apt_mark.log.read_text() == "intel-opencl-icd level-zero\n"
    assert not apt_mark.run(packages=packages)["changed"]


def test_only_named_holds_are_taken_away(apt_mark: AptMark) -> None:
    apt_mark.state.write_text("other\nlevel-zero\n")
    assert apt_mark.run(packages=["level-zero"], state="unheld")["changed"]
    assert apt_mark.state.read_text() == "other\n"


def test_a_package_that_apt_does_not_know_is_an_error(apt_mark: AptMark) -> None:
    result = apt_mark.run(packages=["unknown"])
    assert result["failed"] and "apt-mark hold failed with status 100: E: Unable to locate package" in result["msg"]


def test_others_that_install_packages_are_waited_for(apt_mark: AptMark) -> None:
    with apt_locked(apt_mark.state.parent):
        late = apt_mark.run(packages=["level-zero"], lock_timeout=1)
        assert "another program has been installing packages for 1 s" in late["msg"] and not apt_mark.log.exists()
        assert apt_mark.run(check=True, packages=["level-zero"])["changed"]
        assert not apt_mark.run(packages=["other"])["changed"]  # nothing to do, so no wait for others
    assert apt_mark.run(packages=["level-zero"])["changed"]
