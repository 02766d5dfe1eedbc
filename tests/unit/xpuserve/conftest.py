"""The service in front of a fake model."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import uvicorn
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import LIMITS, MODEL, FakeBackend, wait_for
from fastapi import FastAPI
from fastapi.testclient import TestClient
from xpuserve.api.app import create_app
from xpuserve.engine.loop import Engine


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def engine(backend: FakeBackend) -> Iterator[Engine]:
    """A warm engine whose queue holds two requests."""
    ready = threading.Event()
    engine = Engine(backend, prompt_format="tokenizer", queue_requests=2, on_ready=ready.set, on_failed=ready.set)
    engine.start()
    assert ready.wait(60)
    backend.seen.clear()
    backend.closed.clear()
    yield engine
    backend.may_answer.set()
    engine.stop(5)
    assert not engine.alive


@pytest.fixture
def app(engine: Engine) -> FastAPI:
    return create_app(engine, MODEL, LIMITS)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)


@pytest.fixture
def url(app: FastAPI) -> Iterator[str]:
    """The application behind a real socket, which the test client has not."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(60)
