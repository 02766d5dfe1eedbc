"""The chat page in headless Chromium, in front of the real web application and a fake model."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Optional

import pytest
import uvicorn
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / part) for part in ("collections", "roles/inference/files/xpuserve", "molecule")]

from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, FakeBackend  # noqa: E402
from rig import cache  # noqa: E402
from xpuserve.api.app import create_app  # noqa: E402
from xpuserve.api.completer import Limits  # noqa: E402
from xpuserve.engine.loop import Engine  # noqa: E402
from xpuserve.engine.request import PLAIN, ChatOptions, Message  # noqa: E402
from xpuserve.keys import Keys  # noqa: E402

LIMITS = Limits(context_length=2000, max_tokens_default=1500)
#: Screenshots of the last run, for a person to look at.
PICTURES = cache.RUN / "page"
SLOW = 60  # seconds that a browser may take for a step, on a machine that has other work

expect.set_options(timeout=SLOW * 1000)


def wait_for(condition: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + SLOW
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def all_turns(messages: Sequence[Message], options: ChatOptions = PLAIN) -> str:
    """A chat template that keeps every turn."""
    return "\n".join(message.content for message in messages)


def wait_long(event: threading.Event) -> None:
    """Let the fake model wait for this as long as a browser may take; it would give up sooner."""
    wait = event.wait
    event.wait = lambda timeout=None: wait(SLOW)  # type: ignore[method-assign]


class Service:
    """The service on a port of its own, which it keeps when it goes away and comes back."""

    def __init__(self) -> None:
        self.backend = FakeBackend()
        self.backend.fake_tokenizer.render = all_turns  # type: ignore[method-assign]
        for event in (self.backend.may_load, self.backend.may_answer):
            wait_long(event)
        self.engine = Engine(self.backend, prompt_format="tokenizer", queue_requests=1, warm_up=False)
        self.keys: Optional[Keys] = None
        self._port = 0

    def start(self) -> None:
        """Serve, and return when requests are answered, or the model is held up by the test."""
        if not self._port:
            self.engine.start()
            wait_for(lambda: self.engine.ready or not self.backend.may_load.is_set())
        listener = socket.create_server(("127.0.0.1", self._port))
        self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}/"
        app = create_app(self.engine, MODEL, LIMITS, self.keys)
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]})
        self._thread.start()
        wait_for(lambda: self._server.started)

    def stop(self) -> None:
        """Go away at once, whatever is under way."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(SLOW)
        assert not self._thread.is_alive()


@pytest.fixture
def service() -> Iterator[Service]:
    """Without keys; a test may change it before the page is opened."""
    service = Service()
    yield service
    service.backend.may_load.set()
    service.backend.may_answer.set()
    service.stop()
    service.engine.stop(SLOW)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium")
    assert chromium, "the Debian package chromium is needed"
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium's own refuses to run as root
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=sandbox)
        yield browser
        browser.close()


Picture = Callable[[Page, str], None]


@pytest.fixture(scope="session")
def picture() -> Picture:
    """Keeps what the window shows, under a name; what an earlier run kept goes."""
    shutil.rmtree(PICTURES, ignore_errors=True)
    PICTURES.mkdir(parents=True)

    def take(page: Page, name: str) -> None:
        page.screenshot(path=PICTURES / f"{name}.png", animations="disabled")

    return take


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the screenshots are."""
    if pictures := sorted(path.name for path in PICTURES.glob("*.png")):
        terminalreporter.write_line(f"Screenshots to look at, in {PICTURES}: {', '.join(pictures)}")


Open = Callable[..., Page]


@pytest.fixture
def visit(browser: Browser, service: Service) -> Iterator[Open]:
    """Opens the page, in a browser without a past. It asks nobody but the service and has no error of its own."""
    errors: list[str] = []
    asked: list[str] = []
    contexts = []

    def visit(script: str = "", **options: object) -> Page:
        """`script` runs before the page's own."""
        service.start()
        context = browser.new_context(**options)
        context.add_init_script(script)
        context.set_default_timeout(SLOW * 1000)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if "Policy" in message.text else None)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(service.url)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert errors == []
    assert [url for url in asked if not url.startswith(service.url)] == []
