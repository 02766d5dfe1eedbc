"""The whole process, with a fake model: how it ends."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CODE = """
    import socket, sys, threading, time
    from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, FakeBackend
    from xpuserve import backends, server
    from xpuserve.settings import Settings

    server.DRAIN_SECONDS = 1
    backend = FakeBackend()
    if "load" in sys.argv:
        backend.load = lambda: time.sleep(60)
    if "last" in sys.argv:
        backend.may_answer.wait = lambda timeout: time.sleep(0.5) or True
    if "forever" in sys.argv:
        backend.may_answer.wait = lambda timeout: time.sleep(60)
    backends.create = lambda settings, instance: backend
    model = {"name": MODEL, "path": "/x", "format": "gguf", "context_length": 64}
    settings = Settings(engine="openvino", device="cpu", model=model, cache_dir="/x")
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    sys.exit(server.run(settings, 0, listener))
"""

Ask = Callable[[str], http.client.HTTPResponse]


@contextmanager
def serving(*arguments: str, ready: bool = True) -> Iterator[tuple[subprocess.Popen[bytes], Ask]]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", textwrap.dedent(CODE), *arguments]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            port = int(process.stdout.readline())

            def ask(method: str, path: str, prompt: str = "") -> http.client.HTTPResponse:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
                body = {"model": "fake-1b", "prompt": prompt, "stream": True}
                connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
                return connection.getresponse()

            while ask("GET", "/ready" if ready else "/health").status != 200:
                time.sleep(0.05)
            yield process, lambda prompt: ask("POST", "/v1/completions", prompt)
        finally:
            process.kill()


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
