"""The whole process: how it ends."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import time
from typing import Any

import pytest
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
