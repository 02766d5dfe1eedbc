"""The service in front of a scripted model, on a real socket."""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "roles/inference/files/xpuserve"), str(ROOT / "collections")]

import uvicorn  # noqa: E402
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import EMBEDDING, MODEL, FakeBackend, wait_for  # noqa: E402
from xpuserve import dialects  # noqa: E402
from xpuserve.api.app import create_app  # noqa: E402
from xpuserve.api.completer import Limits  # noqa: E402
from xpuserve.engine.backend import Backend  # noqa: E402
from xpuserve.engine.loop import Engine  # noqa: E402
from xpuserve.engine.request import SamplingParams  # noqa: E402
from xpuserve.engine.runner import Tokens  # noqa: E402

# LlamaIndex has a separate environment, as it needs another version of openai.
if importlib.util.find_spec("llama_index"):
    collect_ignore = ["test_clients.py", "test_lm_eval.py"]
else:
    collect_ignore = ["test_llama_index.py"]

#: A template that supports tools and writes calls between tags.
QWEN = "{% if tools %}<tool_call>{% endif %}"


class Scripted(FakeBackend):
    """Answers each request with the next line of its script."""

    offers = frozenset({"structured_outputs"})

    def __init__(self) -> None:
        super().__init__()
        self.script: list[str] = []

    def generate(self, prompt: Sequence[int], sampling: SamplingParams) -> Tokens:
        if self.script:
            self.answer = self.script.pop(0)
        return super().generate(prompt, sampling)


@pytest.fixture
def backend() -> Scripted:
    return Scripted()


@contextmanager
def running(backend: Backend) -> Iterator[Engine]:
    """An engine that has loaded its model."""
    ready = threading.Event()
    engine = Engine(backend, prompt_format="tokenizer", on_ready=ready.set, on_failed=ready.set)
    engine.start()
    assert ready.wait(30)
    yield engine
    engine.stop(10)


@contextmanager
def served(engine: Engine) -> Iterator[str]:
    """The URL of an engine."""
    app = create_app(engine, MODEL, Limits(32768, 2000), texts={"embedding": EMBEDDING})
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_for(lambda: server.started, 60)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(10)


@pytest.fixture(params=["native", "generic"])
def url(request: pytest.FixtureRequest, backend: Scripted) -> Iterator[str]:
    """A service whose model's template supports tools, and one whose does not."""
    with running(backend) as engine:
        engine.encoder.vocabulary = 256
        if request.param == "native":
            engine.dialect = dialects.of(QWEN)
        backend.seen.clear()
        with served(engine) as found:
            yield found


@pytest.fixture
def native(request: pytest.FixtureRequest) -> bool:
    """Whether the model's template supports tools."""
    return bool(request.node.callspec.params["url"] == "native")


def get_weather(city: str) -> str:
    """Look at the weather in a city."""
    return f"18 degrees in {city}"


def calls(native: bool, name: str, arguments: Any, *, forced: bool = False) -> str:
    """A model's text that calls a tool."""
    call = json.dumps({"name": name, "arguments": arguments})
    if forced:
        return call
    return f"<tool_call>\n{call}\n</tool_call>" if native else f'{{"tool_call": {call}}}'


def says(native: bool, text: str) -> str:
    """A model's text that answers although it may call a tool."""
    return text if native else json.dumps({"response": text})
