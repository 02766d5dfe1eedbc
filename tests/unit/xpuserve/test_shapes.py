"""Responses and Messages: read by the official clients, and the events of both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, FakeBackend
from fastapi.testclient import TestClient
from openai import OpenAI
from xpuserve import dialects
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.engine.loop import Engine
from xpuserve.keys import Keys

QWEN = "{% if tools %}<tool_call>{% endif %}<think>"
TOOL: dict[str, Any] = {"type": "function", "name": "get_weather", "parameters": {"type": "object"}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
ANSWER = f"<think>\nHm.\n</think>\n\nI look.\n{CALL}"
KEY = "secret-of-anna-0123456789"


@pytest.fixture
def openai(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=30) as client:
        yield client


@pytest.fixture
def thoughtful(engine: Engine, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that thinks, speaks and calls a tool."""
    monkeypatch.setattr(engine, "dialect", dialects.of(QWEN))
    backend.answer = ANSWER


@pytest.fixture
def roomy(engine: Engine) -> TestClient:
    return TestClient(create_app(engine, MODEL, Limits(4096, 400)), raise_server_exceptions=False)


def events(text: str) -> list[dict[str, Any]]:
    """The events of a stream, each with its name before it."""
    found = []
    for event in text.strip().split("\n\n"):
        name, _between, data = event.partition("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def test_a_response_to_the_official_client(openai: OpenAI) -> None:
    response = openai.responses.create(model=MODEL, input="Where?", instructions="Be brief.", max_output_tokens=40)
    assert response.output_text == "Paris is the capital of France."
    assert (response.status, response.to_dict()["store"]) == ("completed", False)
    assert response.usage
    assert (response.usage.input_tokens, response.usage.output_tokens) == (6, 31)
    short = openai.responses.create(model=MODEL, input="Where?", max_output_tokens=5)
    assert short.incomplete_details
    assert (short.status, short.incomplete_details.reason, short.output_text) == (
        *("incomplete", "max_output_tokens"),
        "Paris",
    )


def test_a_streamed_response_to_the_official_client(openai: OpenAI) -> None:
    with openai.responses.stream(model=MODEL, input="Where?") as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_response()
    assert final.output_text == "Paris is the capital of France."
    assert kinds[:4] == [
        *("response.created", "response.in_progress"),
        *("response.output_item.added", "response.content_part.added"),
    ]
    assert kinds[-4:] == [
        *("response.output_text.done", "response.content_part.done"),
        *("response.output_item.done", "response.completed"),
    ]


def test_items_of_a_response(roomy: TestClient, thoughtful: None) -> None:
    body = {"input": [{"role": "user", "content": "Weather?"}], "tools": [TOOL]}
    whole = roomy.post("/v1/responses", json=body).json()
    assert [item["type"] for item in whole["output"]] == ["reasoning", "message", "function_call"]
    thought, message, call = whole["output"]
    assert thought["content"][0]["text"] == "Hm."
    assert message["content"][0]["text"] == "I look."
    assert (call["name"], json.loads(call["arguments"])) == ("get_weather", {"city": "Paris"})
    assert call["call_id"].startswith("call_")
    found = events(roomy.post("/v1/responses", json={**body, "stream": True}).text)
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    arguments = [event["delta"] for event in found if event["type"] == "response.function_call_arguments.delta"]
    assert "".join(arguments) == '{"city": "Paris"}'
    assert [event["item"]["type"] for event in found if event["type"] == "response.output_item.done"] == [
        *("reasoning", "message", "function_call"),
    ]
    assert found[-1]["response"]["output"][2]["arguments"] == '{"city": "Paris"}'


def test_results_of_tools_in_a_response(roomy: TestClient, backend: FakeBackend) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "1", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "18 degrees"},
    ]
    assert roomy.post("/v1/responses", json={"input": items}).status_code == 200
    assert backend.seen[-1][0] == "Result of get_weather: 18 degrees"


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an image": ({"input": [{"role": "user", "content": [{"type": "input_image", "image_url": "x"}]}]}, "input_image"),
    "a stored response": ({"input": "x", "previous_response_id": "resp_1"}, "previous_response_id"),
    "a tool of the server's": ({"input": "x", "tools": [{"type": "web_search"}]}, "web_search"),
    "an item of another kind": ({"input": [{"type": "item_reference", "id": "x"}]}, "item_reference"),
    "nothing": ({}, "input"),
    "too long": ({"input": "x" * 5000}, "maximum context length is 4096 tokens"),
}


@pytest.mark.parametrize(("body", "words"), REFUSED.values(), ids=REFUSED)
def test_what_a_response_can_not_have_is_named(roomy: TestClient, body: dict[str, Any], words: str) -> None:
    response = roomy.post("/v1/responses", json=body)
    assert response.status_code == 400
    assert words in response.json()["error"]["message"]


def test_a_response_that_fails(roomy: TestClient) -> None:
    found = events(roomy.post("/v1/responses", json={"input": "CRASH", "stream": True}).text)
    assert found[-1]["type"] == "response.failed"
    assert found[-1]["response"]["error"]["code"] == "engine_error"


def test_a_message_of_anthropics_shape(roomy: TestClient, thoughtful: None) -> None:
    tool = {"name": "get_weather", "input_schema": {"type": "object"}}
    body = {"max_tokens": 400, "messages": [{"role": "user", "content": "Weather?"}], "tools": [tool]}
    whole = roomy.post("/v1/messages", json=body).json()
    assert [block["type"] for block in whole["content"]] == ["thinking", "text", "tool_use"]
    assert whole["content"][2]["input"] == {"city": "Paris"}
    assert whole["stop_reason"] == "tool_use"
    found = events(roomy.post("/v1/messages", json={**body, "stream": True}).text)
    assert found[0]["type"] == "message_start"
    assert [event["content_block"]["type"] for event in found if event["type"] == "content_block_start"] == [
        *("thinking", "text", "tool_use"),
    ]
    deltas = [event["delta"] for event in found if event["type"] == "content_block_delta"]
    assert "".join(delta.get("partial_json", "") for delta in deltas) == '{"city": "Paris"}'
    assert (found[-2]["delta"]["stop_reason"], found[-1]["type"]) == ("tool_use", "message_stop")
    assert found[-2]["usage"]["output_tokens"] == len(ANSWER)


def test_a_conversation_of_anthropics_shape(roomy: TestClient, backend: FakeBackend) -> None:
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "get_weather", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "18 degrees"}]},
    ]
    body = {"system": [{"type": "text", "text": "Be brief."}], "messages": messages, "max_tokens": 5, "top_k": 3}
    assert roomy.post("/v1/messages", json=body).json()["stop_reason"] == "max_tokens"
    prompt, sampling = backend.seen[-1]
    assert (prompt, sampling.top_k) == ("Result of get_weather: 18 degrees", 3)
    count = roomy.post("/v1/messages/count_tokens", json=body).json()["input_tokens"]
    assert count == len(prompt)


def test_errors_of_anthropics_shape(engine: Engine, tmp_path: Any) -> None:
    path = tmp_path / "keys"
    path.touch(0o600)
    path.write_text(f"{KEY}\n")
    client = TestClient(create_app(engine, MODEL, Limits(64, 40), Keys(path)))
    question = {"messages": [{"role": "user", "content": "x" * 99}], "max_tokens": 5}
    for headers, body, status, kind in (
        ({}, question, 401, "authentication_error"),
        ({"x-api-key": KEY}, {**question, "model": "x"}, 404, "not_found_error"),
        ({"x-api-key": KEY}, question, 400, "invalid_request_error"),
        ({"x-api-key": KEY}, {}, 400, "invalid_request_error"),
    ):
        response = client.post("/v1/messages", json=body, headers=headers)
        assert response.status_code == status
        assert response.json()["type"] == "error"
        assert response.json()["error"]["type"] == kind
    assert (
        "prompt is too long"
        in client.post("/v1/messages", json=question, headers={"Authorization": f"Bearer {KEY}"}).json()["error"][
            "message"
        ]
    )
    assert client.post("/v1/chat/completions", json={}, headers={"x-api-key": KEY}).status_code == 401
