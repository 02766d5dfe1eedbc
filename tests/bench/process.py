"""Processes of the contestants: started one at a time, measured, and ended."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from tests.bench import cores
from tests.bench.servers import SERVICE, Start

#: Time limit for loading a model, and for BigDL converting it, on a busy machine.
READY_SECONDS = 600
END_SECONDS = 60


class BenchError(Exception):
    """A contestant cannot be measured; the message says why."""


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(start: Start, port: int, log: Path) -> Iterator[None]:
    """Run a server until the block ends."""
    with (
        log.open("w") as output,
        subprocess.Popen(
            start.command, env={**os.environ, **start.environment}, stdout=output, stderr=output
        ) as process,
    ):
        try:
            await_ready(process, start.ready, port, log)
            with cores.apart(process.pid) if start.apart else nullcontext():
                yield
        finally:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def await_ready(process: subprocess.Popen[bytes], path: str, port: int, log: Path) -> None:
    """Wait until the server answers 200. Raises BenchError if it does not."""
    latest = time.monotonic() + READY_SECONDS
    while not answers(path, port):
        if process.poll() is not None:
            raise BenchError(f"it ended with status {process.returncode}: {last_line(log)}")
        if time.monotonic() > latest:
            raise BenchError(f"it was not ready within {READY_SECONDS} s: {last_line(log)}")
        time.sleep(0.2)


def answers(path: str, port: int) -> bool:
    """Tell whether the server answers 200 there."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def ask(port: int, model: str, clients: int, requests: int, options: Sequence[str]) -> dict[str, Any]:
    """Measure a server with `xpuserve bench`."""
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "xpuserve", "bench", "--json", "--url", url, "--clients", str(clients)]
    command += ["--requests", str(requests), *options, *(["--model", model] if model else [])]
    result = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(SERVICE)}, capture_output=True, text=True, check=False
    )
    if not result.stdout:
        raise BenchError(f"{clients} clients: {result.stderr.strip().splitlines()[-1]}")
    report = json.loads(result.stdout)
    return {**report["runs"][0], "counted": report["counted"]}


def loop(start: Start, work: dict[str, Any], folder: Path, log: Path) -> dict[int, dict[str, Any]]:
    """Run a loop without HTTP, which measures itself."""
    output = folder / "loop.json"
    command = [*start.command, str(output), json.dumps(work)]
    with log.open("w") as stream:
        status = subprocess.run(
            command, env={**os.environ, **start.environment}, stdout=stream, stderr=stream, check=False
        ).returncode
    if status != 0:
        raise BenchError(f"it ended with status {status}: {last_line(log)}")
    return {run["clients"]: run for run in json.loads(output.read_text(encoding="utf-8"))["runs"]}


def last_line(log: Path) -> str:
    """The end of a log."""
    return (log.read_text(errors="replace").strip().splitlines() or ["it said nothing"])[-1][:300]
