"""The whole process: how it ends."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.process import serving


def events(response: http.client.HTTPResponse) -> list[Any]:
    *events, done, end = response.read().decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def stop(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_under_way_is_finished_before_the_process_ends(number: signal.Signals) -> None:
    with serving("last") as (process, ask):
        response = ask("WAIT")
        assert stop(process, number) == 0
        assert events(response)[-1]["choices"][0]["finish_reason"] == "stop"


def test_an_answer_that_takes_too_long_ends_with_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with serving("forever") as (process, ask):
        response = ask("WAIT")
        started = time.monotonic()
        assert stop(process) == 0
        assert time.monotonic() - started < 8
        assert events(response)[-1]["error"]["code"] == "shutting_down"
    assert "Traceback" not in capfd.readouterr().err


def test_a_model_that_loads_does_not_hold_up_the_end() -> None:
    with serving("load", ready=False) as (process, _):
        started = time.monotonic()
        assert stop(process) == 0
        assert time.monotonic() - started < 3


def test_an_engine_that_ends_fails_its_requests_and_the_process() -> None:
    with serving() as (process, ask):
        response = ask("EXIT")
        assert events(response)[-1]["error"]["code"] == "engine_error"
        assert process.wait(10) == 1


class Manager:
    """What systemd hears."""

    def __init__(self, path: Path) -> None:
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(str(path))
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}

    def hears(self, state: bytes, seconds: float) -> bool:
        """Whether `state` comes within so many seconds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._channel.settimeout(max(0.001, end - time.monotonic()))
            with suppress(TimeoutError):
                if state in self._channel.recv(1000):
                    return True
        return False


def test_the_watchdog_hears_of_the_service_until_its_engine_hangs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manager = Manager(tmp_path / "notify")
    with serving("forever", environment=manager.environment, stall_timeout=1) as (process, ask):
        for _ in range(20):  # longer than an engine with work may take for a step
            assert manager.hears(b"WATCHDOG=1", 5)
        ask("WAIT")
        wait_for(lambda: ask.status("/health") == 503)
        # What was on its way comes, and then no more.
        assert not all(manager.hears(b"WATCHDOG=1", 0.5) for _ in range(30))
        assert ask.status("/health") == 503
        assert process.poll() is None
        process.send_signal(signal.SIGABRT)  # as systemd does
        assert process.wait(10) == -signal.SIGABRT
    log = capfd.readouterr().err
    assert "the engine has work, and no step has ended for 1 s" in log
    assert "in generate" in log  # where it hung


def test_nobody_is_told_where_nobody_watches(tmp_path: Path) -> None:
    manager = Manager(tmp_path / "notify")
    environment = {**manager.environment, "WATCHDOG_PID": "1"}
    with serving(environment=environment):
        assert manager.hears(b"READY=1", 5)
        assert not manager.hears(b"WATCHDOG=1", 0.5)
