"""Tools and thoughts in chats, with a scripted model."""

from __future__ import annotations

import json
from typing import Any, Optional

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, FakeBackend
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_api import CHAT, error, sse
from fastapi.testclient import TestClient
from xpuserve import dialects
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.dialects.base import Dialect
from xpuserve.engine.loop import Engine

QWEN = "{% if tools %}<tool_call>{% endif %}<think>{{ enable_thinking }}"
PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER: dict[str, Any] = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS}}
TIME: dict[str, Any] = {"type": "function", "function": {"name": "get_time"}}
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'


@pytest.fixture
def client(engine: Engine, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> TestClient:
    """With room for tools described as text, and an engine that supports forms."""
    monkeypatch.setattr(FakeBackend, "offers", frozenset({"structured_outputs"}))
    return TestClient(create_app(engine, MODEL, Limits(4096, 400)), raise_server_exceptions=False)


@pytest.fixture
def qwen(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Dialect:
    """The model's template knows tools and thoughts."""
    monkeypatch.setattr(engine, "dialect", dialects.of(QWEN))
    return engine.dialect


def ask(**more: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Weather?"}], "tools": [WEATHER, TIME], **more}


def choice(client: TestClient, **more: Any) -> dict[str, Any]:
    response = client.post(CHAT, json=ask(**more))
    assert response.status_code == 200, response.text
    return dict(response.json()["choices"][0])


def assembled(client: TestClient, **more: Any) -> tuple[dict[str, Any], str]:
    """The message of a stream as clients put it together, and its finish reason."""
    message: dict[str, Any] = {"content": "", "reasoning_content": "", "tool_calls": []}
    reason = None
    for event in sse(client.post(CHAT, json=ask(stream=True, **more)).text):
        delta, reason = event["choices"][0]["delta"], event["choices"][0]["finish_reason"] or reason
        for name in ("content", "reasoning_content"):
            message[name] += delta.get(name) or ""
        for call in delta.get("tool_calls", ()):
            if "id" in call:
                assert call["index"] == len(message["tool_calls"])
                message["tool_calls"].append({"id": call["id"], "name": call["function"]["name"], "arguments": ""})
            message["tool_calls"][call["index"]]["arguments"] += call["function"]["arguments"]
    return message, str(reason)


def form(backend: FakeBackend) -> Optional[dict[str, Any]]:
    """The schema that the last answer was forced into."""
    output = backend.seen[-1][1].structured
    return json.loads(output.text) if output else None


def test_a_model_calls_a_tool_in_its_own_dialect(client: TestClient, backend: FakeBackend, qwen: Dialect) -> None:
    backend.answer = f"<think>\nHm.\n</think>\n\nI look.\n{CALL}"
    found = choice(client)
    (call,) = found["message"].pop("tool_calls")
    assert found["message"] == {"role": "assistant", "content": "I look.", "reasoning_content": "Hm."}
    assert found["finish_reason"] == "tool_calls"
    assert (call["type"], call["function"]["name"]) == ("function", "get_weather")
    assert json.loads(call["function"]["arguments"]) == {"city": "Paris"}
    assert form(backend) is None
    message, reason = assembled(client)
    assert (message["content"], message["reasoning_content"], reason) == ("I look.", "Hm.", "tool_calls")
    assert message["tool_calls"][0]["arguments"] == '{"city": "Paris"}'
    assert message["tool_calls"][0]["id"].startswith("call_")


def test_calls_at_once_or_only_the_first(client: TestClient, backend: FakeBackend, qwen: Dialect) -> None:
    backend.answer = CALL + CALL.replace("Paris", "Rome")
    assert choice(client)["message"]["content"] is None
    message, _reason = assembled(client)
    assert [json.loads(call["arguments"])["city"] for call in message["tool_calls"]] == ["Paris", "Rome"]
    assert len({call["id"] for call in message["tool_calls"]}) == 2
    assert len(choice(client, parallel_tool_calls=False)["message"]["tool_calls"]) == 1


def test_no_tool_where_none_may_be_called(client: TestClient, backend: FakeBackend, qwen: Dialect) -> None:
    backend.answer = CALL
    assert choice(client, tool_choice="none")["message"]["content"] == CALL


@pytest.mark.parametrize(
    "tool_choice", ["required", {"type": "function", "function": {"name": "get_weather"}}], ids=["required", "named"]
)
@pytest.mark.parametrize("native", [False, True])
def test_a_call_is_forced(
    request: pytest.FixtureRequest, client: TestClient, backend: FakeBackend, tool_choice: Any, native: bool
) -> None:
    if native:
        request.getfixturevalue("qwen")
    backend.answer = '{"name": "get_weather", "arguments": {"city": "Paris"}}'
    for message in (choice(client, tool_choice=tool_choice)["message"], assembled(client, tool_choice=tool_choice)[0]):
        assert len(message["tool_calls"]) == 1
        assert not message["content"]
    schema = form(backend)
    assert schema
    names = [each["properties"]["name"]["const"] for each in schema.get("anyOf", [schema])]
    assert names == (["get_weather", "get_time"] if tool_choice == "required" else ["get_weather"])


def test_a_template_that_knows_no_tools_gets_them_as_text(client: TestClient, backend: FakeBackend) -> None:
    backend.answer = '{"response": "It is \\"fine\\"."}'
    assert choice(client)["message"]["content"] == 'It is "fine".'
    schema = form(backend)
    assert schema
    assert [list(each["properties"]) for each in schema["anyOf"]] == [["response"], ["tool_call"]]
    backend.answer = '{"tool_call": {"name": "get_time", "arguments": {}}}'
    message, reason = assembled(client)
    assert (message["tool_calls"][0]["name"], reason) == ("get_time", "tool_calls")


def test_parameters_that_no_grammar_takes_are_no_reason_to_refuse_a_chat(
    client: TestClient, backend: FakeBackend
) -> None:
    wild = {"type": "function", "function": {"name": "f", "parameters": {"type": "no such type"}}}
    backend.answer = '{"response": "Hi"}'
    assert choice(client, tools=[wild])["message"]["content"] == "Hi"
    refused = client.post(CHAT, json=ask(tools=[wild], tool_choice="required"))
    assert refused.status_code == 400
    assert error(refused)["param"].startswith("tools")


def test_an_answer_of_a_given_form_may_be_a_call_instead(client: TestClient, backend: FakeBackend) -> None:
    wanted = {"type": "json_schema", "json_schema": {"name": "a", "schema": PARAMETERS}}
    backend.answer = '{"city": "Rome"}'
    assert choice(client, response_format=wanted)["message"]["content"] == backend.answer
    schema = form(backend)
    assert schema
    assert schema["anyOf"][0] == PARAMETERS
    backend.answer = '{"name": "get_time", "arguments": {}}'
    assert choice(client, response_format=wanted)["message"]["tool_calls"][0]["function"]["name"] == "get_time"


def test_results_of_tools_come_back(client: TestClient, backend: FakeBackend) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "18 degrees"}]},
    ]
    assert client.post(CHAT, json={"messages": messages}).status_code == 200
    assert backend.seen[-1][0] == "Result of get_weather: 18 degrees"


def test_an_answer_goes_on(client: TestClient, backend: FakeBackend) -> None:
    messages = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": " In"}]
    body = {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    assert client.post(CHAT, json=body).status_code == 200
    assert backend.seen[-1][0] == "Where? In"
    for wrong in ({**body, "add_generation_prompt": True}, {**body, "messages": messages[:1]}):
        assert client.post(CHAT, json=wrong).status_code == 400


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a tool of another kind": ({"tools": [{"type": "web_search"}]}, "tools.0", "web_search"),
    "a tool without a name": ({"tools": [{"type": "function", "function": {}}]}, "tools.0.function.name", "required"),
    "a choice that there is not": ({"tool_choice": "always"}, "tool_choice", "none, auto, required"),
    "a tool that there is not": (
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        "tool_choice",
        "no tool 'f'",
    ),
    "a call and no tools": ({"tools": [], "tool_choice": "required"}, "tool_choice", "no tools"),
    "an image": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
        "messages.0.content",
        "part 0 is image_url: this model reads text only",
    ),
    "no content": ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "missing or null"),
    "calls of a user": (
        {
            "messages": [
                {"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
            ]
        },
        "messages.0.tool_calls",
        "only a message of the assistant",
    ),
    "a template of its own": (
        {"chat_template_kwargs": {"chat_template": "x"}},
        "chat_template_kwargs",
        "cannot be set by the client",
    ),
    "a model that does not think": ({"reasoning_effort": "high"}, "reasoning_effort", "does not think"),
    "too many stops": ({"stop": ["a"] * 65}, "stop", "65 stop sequences"),
    "an empty stop": ({"stop": [""]}, "stop", "non-empty"),
    "too long": ({"max_tokens": 5000}, "max_tokens", "This model's maximum context length is 4096 tokens"),
}


@pytest.mark.parametrize(("more", "param", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(client: TestClient, more: dict[str, Any], param: str, message: str) -> None:
    response = client.post(CHAT, json=ask(**more))
    assert response.status_code == 400
    problem = error(response)
    assert problem["param"] == param
    assert message in problem["message"]


def test_a_seed_below_0_is_none_and_many_stops_are_taken(client: TestClient, backend: FakeBackend) -> None:
    choice(client, tools=None, seed=-1, stop=["a"] * 5, model=None)
    assert backend.seen[-1][1].seed is None
    assert len(backend.seen[-1][1].stop) == 5


def test_token_ids_are_prompts_and_a_prompt_is_echoed(
    client: TestClient, engine: Engine, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine.encoder, "vocabulary", 256)
    backend.answer = "!"
    asked = {"prompt": [list(b"Hi"), list(b"Yo")], "echo": True}
    assert [each["text"] for each in client.post("/v1/completions", json=asked).json()["choices"]] == ["Hi!", "Yo!"]
    streamed = sse(client.post("/v1/completions", json={"prompt": "Hi", "echo": True, "stream": True}).text)
    assert "".join(each["choices"][0]["text"] for each in streamed) == "Hi!"
    for wrong in ({"prompt": [256]}, {"prompt": [[5], [300]]}, {"prompt": [300], "echo": True}):
        assert client.post("/v1/completions", json=wrong).status_code == 400
    monkeypatch.setattr(FakeBackend, "offers", frozenset({"logprobs", "top_logprobs"}))
    for count in (0, 1):
        response = client.post("/v1/completions", json={"prompt": "x", "echo": True, "logprobs": count})
        assert response.status_code == 400
        assert error(response)["message"] == "echo: this server's engine has logprobs of the answer's tokens alone"


def test_text_to_token_ids_and_back(client: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.encoder, "vocabulary", 258)
    told = client.post("/tokenize", json={"prompt": "Hi"}).json()
    assert told == {"count": 3, "max_model_len": 4096, "tokens": [256, 72, 105]}
    assert client.post("/tokenize", json={"prompt": "Hi", "add_special_tokens": False}).json()["tokens"] == [72, 105]
    chat = {"messages": [{"role": "user", "content": "Hi"}]}
    assert client.post("/tokenize", json=chat).json()["tokens"] == [72, 105]
    assert client.post("/detokenize", json={"tokens": [256, 72, 105]}).json() == {"prompt": "Hi"}
    for path, body in (("/tokenize", {}), ("/tokenize", {"prompt": "x", **chat}), ("/detokenize", {"tokens": [999]})):
        assert client.post(path, json=body).status_code == 400


def test_what_a_client_needs_to_count_tokens(
    client: TestClient, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"bos_token": None, "eos_token": None, "chat_template": "{}", "model_max_length": 4096}
    assert client.get("/tokenizer_info").json() == told
    pieces = [*map(chr, range(256)), "<s>", b"</s>"]
    monkeypatch.setattr(backend.fake_tokenizer, "pieces", lambda: pieces, raising=False)
    monkeypatch.setattr(backend.fake_tokenizer, "template", "")
    told = {"bos_token": "<s>", "eos_token": "</s>", "chat_template": None, "model_max_length": 4096}
    assert client.get("/tokenizer_info").json() == told


def test_a_thought_that_the_prompt_begins_is_read_and_one_before_a_form_is_closed(
    client: TestClient, engine: Engine, backend: FakeBackend, qwen: Dialect
) -> None:
    backend.fake_tokenizer.template = "{}<think>\n"
    backend.answer = "Hm.</think>Paris."
    assert choice(client)["message"] == {"role": "assistant", "content": "Paris.", "reasoning_content": "Hm."}
    assert choice(client, response_format={"type": "json_object"}, tools=None)["message"]["content"] == backend.answer
    assert backend.seen[-1][0] == "Weather?<think>\n\n</think>\n\n"
