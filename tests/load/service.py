"""The service as a node runs it: its own process, a real model, on the CPU."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rig.contents import models
from rig.smollm2 import GGUF_NAME, HF_NAME

from tests.load.client import LoadClient

PACKAGE = Path(__file__).resolve().parents[2] / "roles/inference/files/xpuserve"
MODEL = "smollm2-135m-instruct"
#: Environments with the engines, which `make test-load` makes.
ENVIRONMENTS = {engine: Path(os.environ[f"XPU_FLEET_{engine.upper()}"]) for engine in ("openvino", "bigdl")}
#: The model as each of them reads it.
WEIGHTS = {
    "openvino": {"path": str(models() / GGUF_NAME), "format": "gguf"},
    "bigdl": {"path": str(models() / HF_NAME), "format": "safetensors", "low_bit": "sym_int8"},
}
#: Seconds after which what has to come is taken to hang, on a machine that has other work.
LONG = 300


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + LONG
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Service:
    """A process that serves `MODEL`."""

    def __init__(
        self, directory: Path, engine: str = "openvino", *, context_length: int = 8192, **settings: Any
    ) -> None:
        """Write its configuration; `settings` are those that differ from the defaults."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self._engine = engine
        model = {"name": MODEL, "context_length": context_length, **WEIGHTS[engine]}
        base = {"engine": engine, "device": "cpu", "port": self._port, "cache_dir": str(directory / "cache")}
        self._config, self._journal = directory / "config.json", directory / "journal"
        self._config.write_text(json.dumps({**base, "model": model, **settings}))

    @contextmanager
    def running(self, files: int = 0) -> Iterator[LoadClient]:
        """Run it until the block ends; yields a client when it is ready. Nothing may have gone wrong that it notes.

        `files` is how many it may open, if not as many as this process.
        """
        python = ENVIRONMENTS[self._engine] / "bin/python"
        command = [str(python), "-m", "xpuserve", "serve", "--config", str(self._config)]
        environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "PYTHONDONTWRITEBYTECODE": "1"}
        with self._journal.open("wb") as journal:
            if files:
                command = ["prlimit", f"--nofile={files}:{files}", *command]
            self._process = subprocess.Popen(command, env=environment, stdout=journal, stderr=journal)
        client = LoadClient(self._port, MODEL)
        try:
            wait_for(lambda: self._process.poll() is not None or client.status("/ready") == 200)
            assert self._process.poll() is None, self.journal[-5000:]
            yield client
        finally:
            self._process.kill()
            self._process.wait()
        assert "Traceback" not in self.journal, self.journal[-5000:]

    @property
    def journal(self) -> str:
        """What it said since its last start."""
        return self._journal.read_text(encoding="utf-8")

    @property
    def outcomes(self) -> set[str]:
        """How requests ended that were on the device, since its last start."""
        return {json.loads(line)["outcome"] for line in self.journal.splitlines() if '"request over"' in line}

    @property
    def engine(self) -> int:
        """The process of its engine; 0 without one."""
        threads = Path(f"/proc/{self._process.pid}/task").glob("*/children")
        return next((int(pid) for file in threads for pid in file.read_text(encoding="ascii").split()), 0)

    @property
    def memory(self) -> int:
        """Bytes that both processes have in memory."""
        files = [Path(f"/proc/{pid}/statm") for pid in (self._process.pid, self.engine) if pid]
        return sum(int(file.read_text(encoding="ascii").split()[1]) for file in files) * os.sysconf("SC_PAGE_SIZE")

    @property
    def open_files(self) -> int:
        """How many files and connections the process has open."""
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        self._process.send_signal(number)

    def stop(self) -> None:
        """Let it end at once, with whatever is under way."""
        self._process.kill()

    def ended(self) -> int:
        """Wait until the process has ended by itself; the exit status."""
        return self._process.wait(LONG)
