"""The whole process: how it ends."""

from __future__ import annotations

import http.client
import json
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.process import serving
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_metrics import read

#: Seconds that another process may take to start, on a machine that has other work.
LONG = 30


def events(response: http.client.HTTPResponse) -> list[Any]:
    *events, done, end = response.read().decode().split("\n\n")
    assert (done, end) == ("data: [DONE]", "")
    return [json.loads(event.removeprefix("data: ")) for event in events]


def stop(process: subprocess.Popen[bytes], number: signal.Signals = signal.SIGTERM) -> int:
    process.send_signal(number)
    return process.wait(60)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_answer_under_way_is_finished_before_the_process_ends(number: signal.Signals) -> None:
    with serving("last") as (process, ask):
        response = ask("WAIT")
        assert stop(process, number) == 0
        assert events(response)[-1]["choices"][0]["finish_reason"] == "stop"


def test_nobody_chooses_the_address_that_counts(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as (process, ask):
        assert ask.request("GET", "/v1/models", headers={"X-Forwarded-For": "192.0.2.9"}).status == 200
        assert stop(process) == 0
    said = capfd.readouterr().err
    assert "192.0.2.9" not in said
    assert '"client": "127.0.0.1"' in said


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


def engine_of(process: subprocess.Popen[bytes]) -> int:
    """The process of the service's engine; 0 without one."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").parent.parent.glob("*/children")
    return next((int(pid) for file in children for pid in file.read_text().split()), 0)


def test_an_engine_that_ends_fails_what_it_answers_and_is_started_again() -> None:
    with serving() as (process, ask):
        response = ask("EXIT")
        assert events(response)[-1]["error"]["code"] == "engine_restarting"
        assert events(ask("Where?"))[-1]["choices"][0]["finish_reason"] == "stop"  # it waited for the next engine
        assert ask.status("/ready") == 200
        assert process.poll() is None


def test_an_engine_that_is_killed_ends_nobody_else(capfd: pytest.CaptureFixture[str]) -> None:
    with serving("forever") as (process, ask), ThreadPoolExecutor(6) as pool:
        stream = ask("WAIT")
        # One on the device is all that this engine has: the others wait over there, and here.
        waiting = [pool.submit(lambda: events(ask("Where?"))) for _ in range(6)]
        counted = re.compile(rb"^vllm:num_requests_(running|waiting){.*} (.*)$", re.MULTILINE)
        wanted = {b"running": b"1.0", b"waiting": b"6.0"}
        wait_for(lambda: dict(counted.findall(ask.request("GET", "/metrics").read())) == wanted, LONG)
        os.kill(engine_of(process), signal.SIGKILL)
        assert events(stream)[-1]["error"]["code"] == "engine_restarting"
        problem = ask.request("GET", "/health")
        assert problem.status == 503
        assert json.loads(problem.read())["status"] == "the engine's process was ended by SIGKILL; it is started again"
        assert ask.status("/ready") == 503
        assert [each.result()[-1]["choices"][0]["finish_reason"] for each in waiting] == ["stop"] * 6
        assert ask.status("/health") == ask.status("/ready") == 200
    assert "Traceback" not in capfd.readouterr().err


def test_an_engine_that_ends_while_it_is_idle_is_started_again() -> None:
    with serving() as (process, ask):
        first = engine_of(process)
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: engine_of(process) not in (0, first), LONG)
        wait_for(lambda: ask.status("/ready") == 200, LONG)


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_only_the_service_ends_its_engine(number: signal.Signals) -> None:
    """A stopped engine counts as hung; signals of systemd or a terminal to all processes do not reach the engine."""
    with serving("last", stall_timeout=2) as (process, ask):
        engine = engine_of(process)
        response = ask("WAIT")
        os.kill(engine, number)
        last = events(response)[-1]
        if number == signal.SIGSTOP:
            assert last["error"]["code"] == "engine_restarting"
            wait_for(lambda: ask.status("/ready") == 200, LONG)
        else:
            assert last["choices"][0]["finish_reason"] == "stop"
            assert engine_of(process) == engine


def test_an_engine_that_hangs_over_what_nobody_wants_any_more_is_noticed_with_nobody_there() -> None:
    with serving("last", stall_timeout=2) as (process, ask):
        engine = engine_of(process)
        response = ask("WAIT")
        os.kill(engine, signal.SIGSTOP)
        response.close()
        wait_for(lambda: engine_of(process) not in (0, engine), LONG)
        wait_for(lambda: ask.status("/ready") == 200, LONG)


def test_who_waits_for_an_engine_in_vain_is_told_when_to_come_back() -> None:
    with serving("once", request_timeout=1) as (process, ask):
        os.kill(engine_of(process), signal.SIGKILL)
        wait_for(lambda: ask.status("/health") == 503, LONG)
        response = ask("Where?")  # it waits until its time is over
        assert (response.status, json.loads(response.read())["error"]["code"]) == (503, "engine_restarting")
        assert response.headers["retry-after"]


def test_an_engine_whose_service_is_gone_ends() -> None:
    with serving("forever") as (process, ask):
        stream = ask("WAIT")
        assert stream.status == 200
        engine = engine_of(process)
        process.kill()
        process.wait()
        wait_for(
            lambda: not Path(f"/proc/{engine}").exists() or "\nState:\tZ" in Path(f"/proc/{engine}/status").read_text()
        )


def test_a_service_whose_model_never_loaded_ends() -> None:
    with serving("broken", ready=False) as (process, _):
        assert process.wait(20) == 1


class Manager:
    """What systemd hears; it reads all the time."""

    def __init__(self, path: Path) -> None:
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._channel.bind(str(path))
        self._heard: queue.Queue[bytes] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}

    def _listen(self) -> None:
        while True:
            self._heard.put(self._channel.recv(1000))

    def hears(self, state: bytes, seconds: float) -> bool:
        """Whether `state` comes within so many seconds."""
        end = time.monotonic() + seconds
        with suppress(queue.Empty):
            while True:
                if state in self._heard.get(timeout=max(0, end - time.monotonic())):
                    return True
        return False


def test_the_watchdog_hears_of_the_service_and_the_service_ends_an_engine_that_hangs(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manager = Manager(tmp_path / "notify")
    with serving("forever", environment=manager.environment, stall_timeout=1) as (process, ask):
        metrics = ask.request("GET", "/metrics").read().decode()
        both = [read(metrics, "xpuserve_resident_memory_bytes", process=name) for name in ("service", "engine")]
        assert min(both) > 10**7
        assert read(metrics, "process_resident_memory_bytes") == sum(both)
        for _ in range(20):  # longer than an engine with work may take for a step
            assert manager.hears(b"WATCHDOG=1", 5)
        stream = ask("WAIT")
        wait_for(lambda: ask.status("/health") == 503, LONG)
        wait_for(lambda: ask.status("/ready") == 200, LONG)  # with another engine
        assert events(stream)[-1]["error"]["code"] == "engine_restarting"
        for _ in range(20):
            assert manager.hears(b"WATCHDOG=1", 5)
        assert process.poll() is None
    log = capfd.readouterr().err
    assert "the engine has work, but no step ended for 1 s" in log
    assert "in generate" in log  # where it hung


def test_the_watchdog_begins_when_the_tokenizer_is_loaded(tmp_path: Path) -> None:
    """Engine openvino's library lets no other thread run meanwhile."""
    manager, gate = Manager(tmp_path / "notify"), tmp_path / "gate"
    with serving("gate", probe=False, environment={**manager.environment, "GATE": str(gate)}) as (_, ask):
        assert not manager.hears(b"WATCHDOG=1", 1)
        gate.touch()
        assert manager.hears(b"WATCHDOG=1", LONG)
        assert ask.status("/health") == 200


def test_nobody_is_told_where_nobody_watches(tmp_path: Path) -> None:
    manager = Manager(tmp_path / "notify")
    environment = {**manager.environment, "WATCHDOG_PID": "1"}
    with serving(environment=environment):
        assert manager.hears(b"READY=1", 5)
        assert not manager.hears(b"WATCHDOG=1", 0.5)
