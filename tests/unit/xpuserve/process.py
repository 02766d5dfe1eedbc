"""The whole process, with a fake model."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Optional

FAKE = """
    import json, os, sys, tempfile, time
    from pathlib import Path
    from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, ByteTokenizer, FakeBackend, FakeTexts
    from xpuserve import backends, logs

    def create(settings, instance):
        backend = FakeBackend()
        backend.texts = FakeTexts() if settings.embedding_model else None
        if "load" in sys.argv:
            backend.load = lambda: time.sleep(60)
        if "broken" in sys.argv:
            backend.load_error = MemoryError()
        if "once" in sys.argv:
            once = Path(tempfile.gettempdir(), f"xpuserve-{os.getppid()}")
            backend.load = (lambda: time.sleep(60)) if once.exists() else backend.load
            once.touch()
        if "last" in sys.argv:
            backend.may_answer.wait = lambda timeout: time.sleep(0.5) or True
        if "forever" in sys.argv:
            backend.may_answer.wait = lambda timeout: time.sleep(60)
        return backend

    logs.use_json()
"""
ENGINE = (
    FAKE
    + """
    import socket
    from xpuserve.engine import worker
    from xpuserve.engine.channel import Channel

    channel, texts = (
        Channel(socket.socket(fileno=int(end))) if end.isdecimal() else None for end in (sys.argv[-1], sys.argv[-2])
    )
    sys.exit(worker.run(channel, create, texts))
"""
)
CODE = (
    FAKE
    + """
    import socket
    from xpuserve import server
    from xpuserve.settings import Settings

    def load_tokenizer(settings, instance):
        while "gate" in sys.argv and not Path(os.environ["GATE"]).exists():
            time.sleep(0.05)
        return ByteTokenizer()

    backends._load_tokenizer = load_tokenizer
    backends._load_counts = lambda settings: FakeTexts().count
    model = {"name": MODEL, "path": "/x", "format": "gguf", "context_length": 64}
    more, engine, *arguments = sys.argv[1:]
    settings = Settings(engine="openvino", device="cpu", model=model, cache_dir="/x", **json.loads(more))
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    sys.exit(server.run(settings, 0, listener, [sys.executable, "-c", engine, *arguments]))
"""
)


class Ask:
    """Sends prompts, and hands over the responses unread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.url = f"http://127.0.0.1:{port}"

    def __call__(self, prompt: str, headers: Optional[dict[str, str]] = None) -> http.client.HTTPResponse:
        body = json.dumps({"model": "fake-1b", "prompt": prompt, "stream": True})
        return self.request("POST", "/v1/completions", body, {"Content-Type": "application/json", **(headers or {})})

    def status(self, path: str) -> int:
        """The status of a page."""
        return self.request("GET", path).status

    def request(self, method: str, path: str, body: Any = None, headers: Any = None) -> http.client.HTTPResponse:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request(method, path, body, headers or {})
        return connection.getresponse()


@contextmanager
def serving(
    *arguments: str,
    ready: bool = True,
    probe: bool = True,
    keys: Optional[Path] = None,
    environment: Optional[dict[str, str]] = None,
    **settings: Any,
) -> Iterator[tuple[subprocess.Popen[bytes], Ask]]:
    """Run the service with `settings` until the block ends. Without `probe`, no request checks that it is up."""
    if keys:
        settings["api_keys_file"] = str(keys)
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **(environment or {})}
    more = json.dumps({"stop_timeout": 1, **settings})
    command = [sys.executable, "-c", textwrap.dedent(CODE), more, textwrap.dedent(ENGINE), *arguments]
    with subprocess.Popen(command, env=variables, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            ask = Ask(int(process.stdout.readline()))
            while probe and ask.status("/ready" if ready else "/health") != 200:
                assert process.poll() is None
                time.sleep(0.05)
            yield process, ask
        finally:
            process.kill()
