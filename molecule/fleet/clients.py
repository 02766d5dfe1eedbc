"""Clients that continuously request streamed answers from a fleet."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

MODEL = "smollm2-135m-instruct"


class Clients:
    """Clients that stream one answer after the other; each is whole, refused, or cut off after its first byte.

    ``longest`` is the longest wait for a first byte in seconds.
    """

    def __init__(self, host: str, port: int, pause: float = 0) -> None:
        self._place = (host, port)
        self._pause = pause
        self.whole = 0
        self.longest = 0.0
        self.failed: list[str] = []
        self.cut: list[str] = []
        self._over = threading.Event()
        self._news = threading.Condition()

    def run(self, number: int) -> None:
        """Run one client."""
        turn = 0
        while not self._over.wait(self._pause):
            turn += 1
            kind, said = self._ask(f"Client {number}, question {turn}: what is the capital of France?")
            with self._news:
                if kind == "whole":
                    self.whole += 1
                else:
                    getattr(self, kind).append(said)
                self._news.notify_all()

    def _ask(self, question: str) -> tuple[str, str]:
        body = {"model": MODEL, "messages": [{"role": "user", "content": question}], "max_tokens": 24, "stream": True}
        client = http.client.HTTPConnection(*self._place, timeout=600)
        got, began = b"", time.monotonic()
        try:
            client.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
            response = client.getresponse()
            with self._news:
                self.longest = max(self.longest, time.monotonic() - began)
            if response.status != 200:
                return "failed", f"{response.status} {response.read()[:300]!r}"
            got = b"\n"
            for line in response:
                got += line
        except (OSError, http.client.HTTPException) as error:
            return ("cut" if got else "failed"), f"{type(error).__name__}: {error}"
        finally:
            client.close()
        if not got.rstrip().endswith(b"data: [DONE]") or b'"error"' in got:
            return "cut", repr(got[-300:])
        return "whole", ""

    def wait(self, more: int = 1) -> None:
        """Wait for so many more whole answers."""
        with self._news:
            wanted = self.whole + more
            assert self._news.wait_for(lambda: self.whole >= wanted, 600), (self.failed, self.cut)

    def __str__(self) -> str:
        counts = f"{self.whole} answers, {len(self.failed)} failed, {len(self.cut)} cut"
        return f"{counts}, first bytes after {self.longest:.1f} s at the most"

    def stop(self) -> None:
        """Let each client finish its answer."""
        self._over.set()


@contextmanager
def asking(host: str, port: int, number: int = 8, pause: float = 0) -> Iterator[Clients]:
    """Run so many clients all the while, and wait for as many answers before and after.

    ``pause`` is each client's pause between requests in seconds.
    """
    clients = Clients(host, port, pause)
    threads = [threading.Thread(target=clients.run, args=(each,), daemon=True) for each in range(number)]
    for thread in threads:
        thread.start()
    try:
        clients.wait(number)
        yield clients
        clients.wait(number)
    finally:
        clients.stop()
        for thread in threads:
            thread.join(600)
