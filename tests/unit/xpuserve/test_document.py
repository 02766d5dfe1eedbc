"""The OpenAPI document, compared with the service's real answers."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import LIMITS, MODEL, FakeBackend
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_api import CHAT, TEXT, chat, occupy, text
from fastapi.testclient import TestClient
from xpuserve.api import document as api_document
from xpuserve.api import schema
from xpuserve.api.app import create_app
from xpuserve.api.auth import OPEN_PATHS
from xpuserve.api.completer import Limits
from xpuserve.api.schema import NOT_OFFERED
from xpuserve.engine.loop import Engine
from xpuserve.engine.request import Failed


@pytest.fixture
def document(client: TestClient) -> dict[str, Any]:
    return dict(client.get("/openapi.json").json())


def check(document: dict[str, Any], response: Any, path: str, method: str = "post") -> int:
    """The response's status, after a look whether it and the body are what the document says."""
    answer = document["paths"][path][method]["responses"][str(response.status_code)]
    kind = response.headers["content-type"].partition(";")[0]
    schema = answer["content"][kind].get("schema", {})
    if kind == "application/json":
        model = getattr(api_document, schema["$ref"].removeprefix("#/components/schemas/"))
        model.model_validate_json(response.content, strict=True, extra="forbid")
    for header in answer.get("headers", {}):
        assert response.headers[header]
    return int(response.status_code)


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_completions_are_as_documented(
    client: TestClient, engine: Engine, backend: FakeBackend, document: dict[str, Any], path: str
) -> None:
    body: Any = chat if path == CHAT else text

    def ask(*arguments: Any, **more: Any) -> int:
        return check(document, client.post(path, json=body(*arguments, **more)), path)

    assert ask(n=2) == ask(stream=True) == 200
    assert ask(temperature=3) == 400
    assert ask("x" * 70000) == 413
    assert ask("EARLY") == 500
    assert check(document, client.post(path, json={**body(), "model": "x"}), path) == 404
    hurried = TestClient(create_app(engine, MODEL, Limits(LIMITS.context_length, 40, request_timeout=0.1)))
    occupy(engine, backend)
    assert check(document, hurried.post(path, json=body()), path) == 504
    engine.abort(Failed("it stops", code="shutting_down"))
    assert ask() == 503


def test_other_shapes_are_as_documented(client: TestClient, document: dict[str, Any]) -> None:
    asked: dict[str, Any] = {
        "/v1/responses": {"input": "Where?"},
        "/v1/messages": {"messages": [{"role": "user", "content": "Where?"}], "max_tokens": 9},
        "/v1/messages/count_tokens": {"messages": [{"role": "user", "content": "Where?"}]},
        "/tokenize": {"prompt": "Where?"},
        "/detokenize": {"tokens": []},
    }
    for path, body in asked.items():
        assert check(document, client.post(path, json=body), path) == 200
        assert check(document, client.post(path, json={}), path) == 400
        assert check(document, client.post(path, json={**body, "model": "x"}), path) == 404


def test_a_full_queue_is_as_documented(
    client: TestClient, engine: Engine, backend: FakeBackend, document: dict[str, Any]
) -> None:
    occupy(engine, backend, waiting=2)
    assert check(document, client.post(CHAT, json=chat()), CHAT) == 429


def test_a_service_that_is_not_ready_is_as_documented(backend: FakeBackend, document: dict[str, Any]) -> None:
    client = TestClient(create_app(Engine(backend, prompt_format="tokenizer"), MODEL, LIMITS))
    assert check(document, client.post(TEXT, json=text()), TEXT) == 503
    assert check(document, client.get("/ready"), "/ready", "get") == 503
    assert check(document, client.get("/health"), "/health", "get") == 503


def test_other_pages_are_as_documented(client: TestClient, document: dict[str, Any]) -> None:
    for path in ("/health", "/ready", "/metrics", "/v1/models"):
        assert check(document, client.get(path), path, "get") == 200
    assert check(document, client.get(f"/v1/models/{MODEL}"), "/v1/models/{name}", "get") == 200
    assert check(document, client.get("/v1/models/x"), "/v1/models/{name}", "get") == 404


def test_only_what_needs_a_key_says_so(document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert ("401" in operation["responses"]) == ("security" in operation) == (path not in OPEN_PATHS)
            assert "422" not in operation["responses"]


def test_the_model_and_what_is_not_offered_are_in_the_document(document: dict[str, Any]) -> None:
    for name in ("ChatRequest", "CompletionRequest"):
        properties = document["components"]["schemas"][name]["properties"]
        assert properties["model"]["enum"] == [None, MODEL]
        offered = getattr(schema, name).model_fields.keys()
        assert {field: properties[field]["enum"][1:] for field in NOT_OFFERED if field not in offered} == {
            field: list(values) for field, values in NOT_OFFERED.items() if field not in offered
        }
