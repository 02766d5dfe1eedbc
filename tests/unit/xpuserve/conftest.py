"""The service in front of a fake model."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import CONTEXT, MODEL, FakeBackend
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
    engine = Engine(backend, prompt_format="tokenizer", queue_limit=2, on_ready=ready.set, on_failed=ready.set)
    engine.start()
    assert ready.wait(5)
    backend.seen.clear()
    backend.closed.clear()
    yield engine
    backend.may_answer.set()
    engine.stop(5)
    assert not engine.alive


@pytest.fixture
def app(engine: Engine) -> FastAPI:
    return create_app(engine, model=MODEL, context_length=CONTEXT, max_tokens_default=40)


@pytest.fixture
def client(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False)
