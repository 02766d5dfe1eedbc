"""Only a run's own machine knows that it has ended."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.plugin_utils import controller


def test_a_process_that_goes_on_has_not_ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("abc\n")
    monkeypatch.setattr(controller, "MACHINE", tmp_path / "machine-id")
    lock = controller.owner("driver", os.getpid())
    assert lock["purpose"] == "driver" and lock["owner"] and not controller.has_ended(lock)
    assert controller.owner("driver", os.getpid())["run"] == lock["run"]
    # Another process got its number, or the machine was restarted meanwhile.
    assert controller.has_ended({**lock, "started": "1"})
    assert controller.has_ended({**lock, "boot": "another"})
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        theirs = controller.owner("driver", other.pid)
        assert theirs["run"] != lock["run"] and not controller.has_ended(theirs)
        other.kill()
    assert controller.has_ended(theirs)


@pytest.mark.parametrize("what", ["host", "machine"])
def test_nothing_is_known_of_another_machine(what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("abc\n")
    monkeypatch.setattr(controller, "MACHINE", tmp_path / "machine-id")
    assert not controller.has_ended({**controller.owner("driver", os.getpid()), "started": "1", what: "another"})


def test_a_machine_without_an_id_is_not_known_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(controller, "MACHINE", tmp_path / "none")
    assert not controller.has_ended({**controller.owner("driver", os.getpid()), "started": "1"})
