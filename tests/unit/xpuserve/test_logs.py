"""What is logged, and what never is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.process import serving
from fastapi.testclient import TestClient
from xpuserve.engine.loop import Engine
from xpuserve.logs import JSONFormatter, Repeated

CHAT = "/v1/chat/completions"
SECRET = "my diary"


class Lines(logging.Handler):
    """Keeps log lines as they would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JSONFormatter())
        self.addFilter(lambda record: not record.name.startswith("httpx"))  # the test's own client
        self.lines: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))

    def of(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["message"] == message]


@pytest.fixture
def log() -> Iterator[Lines]:
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def chat(prompt: str = SECRET, **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}


def test_a_request_is_two_lines_with_one_id(client: TestClient, log: Lines) -> None:
    response = client.post(CHAT, json=chat(max_tokens=5))
    request_id = response.headers["x-request-id"]
    assert response.json()["id"] == f"chatcmpl-{request_id}"
    wait_for(lambda: bool(log.of("request over") and log.of("answered")))
    (over,), (answered,) = log.of("request over"), log.of("answered")
    assert over["request_id"] == f"{request_id}-0"
    assert (over["outcome"], over["prompt_tokens"], over["answer_tokens"]) == ("length", 8, 5)
    assert 0 <= over["queue_seconds"] <= over["first_token_seconds"] <= over["seconds"]
    assert {name: answered[name] for name in ("request_id", "method", "route", "status", "level")} == {
        **{"request_id": request_id, "method": "POST", "route": CHAT, "status": 200, "level": "INFO"}
    }
    client.get("/health")
    assert len(log.of("answered")) == 1  # probes are not worth a line


@pytest.mark.parametrize(
    ("given", "kept"), [("0333b635-1c96-4a1b-a6b4-ee84dd3c3bbe", True), ("short", False), (f"{SECRET} {SECRET}", False)]
)
def test_a_request_keeps_the_id_that_a_gateway_gave_it(client: TestClient, log: Lines, given: str, kept: bool) -> None:
    request_id = client.post(CHAT, json=chat(), headers={"X-Request-Id": given}).headers["x-request-id"]
    assert (request_id == given) is kept
    wait_for(lambda: bool(log.of("answered")))
    assert log.of("answered")[0]["request_id"] == request_id


@pytest.mark.parametrize("prompt", [SECRET, f"{SECRET} CRASH", f"{SECRET} EARLY", SECRET * 100])
def test_no_text_of_anyone_is_logged(client: TestClient, log: Lines, prompt: str) -> None:
    status = client.post(CHAT, json=chat(prompt, user=SECRET, metadata={SECRET: SECRET}, stop=SECRET)).status_code
    client.post(CHAT, json={SECRET: SECRET})
    client.get(f"/v1/models/{SECRET}")
    client.get(f"/{SECRET}")
    wait_for(lambda: len(log.of("answered")) == 4)
    assert log.of("answered")[0]["status"] == status
    text = json.dumps(log.lines)
    assert SECRET not in text
    assert SECRET.replace(" ", "%20") not in text
    assert "Paris" not in text


def test_a_bug_is_logged_with_its_id(
    client: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch, log: Lines
) -> None:
    monkeypatch.setattr(engine.encoder, "encode_chat", lambda *arguments: 1 // 0)
    response = client.post(CHAT, json=chat())
    (line,) = log.of("a bug")
    assert line["request_id"] == response.headers["x-request-id"]
    assert "ZeroDivisionError" in line["exception"]
    assert line["level"] == "ERROR"


def test_every_line_of_the_process_is_json(capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as (process, ask):
        ask("Where?").read()
        ask.request("GET", "/nothing").read()
        process.terminate()
        process.wait(60)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert {"request over", "answered"} <= {line["message"] for line in lines}
    assert all(line.keys() >= {"time", "level", "logger", "message"} for line in lines)


def test_a_warning_that_is_repeated_is_not_written_each_time() -> None:
    """As of a server without free file descriptors."""
    repeated = Repeated(most=3, seconds=60)

    def passes(message: str, at: float, level: int = logging.ERROR) -> dict[str, Any] | bool:
        record = logging.LogRecord("asyncio", level, "", 0, message, (), None)
        record.created = at
        return repeated.filter(record) and getattr(record, "fields", {})

    assert [passes("no file", at) for at in range(5)] == [{}, {}, {}, False, False]
    assert passes("another", 5) == {}
    assert [passes("a request", 5, logging.INFO) for _ in range(9)] == [{}] * 9
    assert passes("no file", 60) == {"left_out": 2}
    assert passes("no file", 61) == {}
