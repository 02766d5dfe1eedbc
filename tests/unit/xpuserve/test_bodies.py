"""Requests of well-known clients, written down from their public behaviour: each gets an answer."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, FakeBackend
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_api import CHAT, sse
from fastapi.testclient import TestClient
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.engine.loop import Engine


def tool(name: str, /, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": f"{name}.", "parameters": schema}}


TEXT = {"type": "string"}
QUESTION = {"role": "user", "content": "Turn on the light."}
CALL = {"id": "call_1", "type": "function", "function": {"name": "turn_on", "arguments": '{"name": "light"}'}}
BODIES: dict[str, dict[str, Any]] = {
    "open webui": {
        "stream": True,
        "model": MODEL,
        "messages": [{"role": "system", "content": "Be kind."}, QUESTION],
        "stream_options": {"include_usage": True},
        "metadata": {"user_id": "1", "chat_id": "2", "features": {"web_search": False}},
        "tools": [
            tool("get_current_timestamp"),
            tool("search_notes", query=TEXT, count={"type": "integer", "default": 5}),
        ],
    },
    "open webui, a title": {
        "model": MODEL,
        "messages": [{"role": "user", "content": "### Task:\nGenerate a concise title."}],
        "stream": False,
        "max_completion_tokens": 100,
        "metadata": {"task": "title_generation"},
    },
    "librechat": {
        "model": MODEL,
        "user": "66f0",
        "stream": True,
        "temperature": 1,
        "top_p": 1,
        "presence_penalty": 0,
        "frequency_penalty": 0,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    },
    "n8n, an agent": {
        "model": MODEL,
        "temperature": 0.7,
        "top_p": 1,
        "frequency_penalty": 0,
        "presence_penalty": 0,
        "n": 1,
        "stream": True,
        "stream_options": {"include_usage": True},
        "tools": [tool("calculator", input=TEXT)],
        "messages": [{"role": "system", "content": "You are a helpful assistant"}, QUESTION],
    },
    "home assistant": {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are a voice assistant."},
            QUESTION,
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "call_1", "content": '{"success": true}'},
        ],
        "tools": [tool("turn_on", name=TEXT, area={"type": "array", "items": TEXT})],
        "max_completion_tokens": 150,
        "temperature": 0.5,
        "top_p": 1,
        "user": "01J",
        "stream": True,
    },
    "continue": {
        "messages": [QUESTION],
        "model": MODEL,
        "max_tokens": 200,
        "stream": True,
        "tools": [tool("read_file", filepath=TEXT)],
        "parallel_tool_calls": False,
        "stop": ["<|im_start|>", "<|im_end|>", "<fim_prefix>", "<fim_suffix>", "```"],
    },
    "cline": {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "You are Cline."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "<task>\nFix it\n</task>"}, {"type": "text", "text": "x"}],
            },
        ],
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    },
    "dify": {
        "model": MODEL,
        "stream": True,
        "user": "abc-123",
        "temperature": 0.7,
        "max_tokens": 100,
        "messages": [{"role": "system", "content": "x"}, QUESTION],
        "tools": [tool("weather", city=TEXT)],
        "tool_choice": "auto",
    },
    "codex": {
        "model": MODEL,
        "instructions": "You are a coding agent.",
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "ls"}]}],
        "tools": [
            {
                "type": "function",
                "name": "shell",
                "description": "Run.",
                "strict": False,
                "parameters": {"type": "object"},
            }
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": False,
        "reasoning": None,
        "store": False,
        "stream": True,
        "include": [],
        "prompt_cache_key": "0199",
    },
    "claude code": {
        "model": MODEL,
        "max_tokens": 300,
        "system": [{"type": "text", "text": "You are an agent.", "cache_control": {"type": "ephemeral"}}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "ls", "cache_control": {"type": "ephemeral"}}]}
        ],
        "tools": [
            {"name": "Bash", "description": "Run.", "input_schema": {"type": "object", "properties": {"command": TEXT}}}
        ],
        "metadata": {"user_id": "x"},
        "stream": True,
    },
    "vllm bench serve": {
        "model": MODEL,
        "prompt": "a b c",
        "repetition_penalty": 1.0,
        "max_tokens": 16,
        "logprobs": None,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
        "temperature": 0.0,
    },
    "guidellm": {
        "model": MODEL,
        "stream": True,
        "stream_options": {"include_usage": True, "continuous_usage_stats": True},
        "max_completion_tokens": 8,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a b c"}]}],
    },
    "vllm bench serve, chats": {
        "model": MODEL,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "a b c"}]}],
        "max_completion_tokens": 16,
        "stream": True,
        "stream_options": {"include_usage": True},
        "ignore_eos": True,
    },
}
COMPLETIONS = "/v1/completions"
PATHS = {"codex": "/v1/responses", "claude code": "/v1/messages?beta=true", "vllm bench serve": COMPLETIONS}


@pytest.mark.parametrize("name", BODIES)
def test_what_a_client_sends_is_answered(
    engine: Engine, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(FakeBackend, "offers", frozenset({"structured_outputs"}))
    client = TestClient(create_app(engine, MODEL, Limits(8192, 400)), raise_server_exceptions=False)
    body = BODIES[name]
    backend.answer = '{"response": "Done."}' if "tools" in body else "Done."
    response = client.post(PATHS.get(name, CHAT), json=body)
    assert response.status_code == 200, response.text
    if PATHS.get(name) == COMPLETIONS:
        text = "".join(choice["text"] for event in sse(response.text) for choice in event["choices"])
        assert sse(response.text)[-1]["usage"]["completion_tokens"] == len(text)
    elif name in PATHS:
        events = [json.loads(line[len("data: ") :]) for line in response.text.splitlines() if line.startswith("data: ")]
        deltas = [event["delta"] for event in events if event["type"].endswith("delta") and "delta" in event]
        text = "".join(delta if isinstance(delta, str) else delta.get("text", "") for delta in deltas)
    elif body["stream"]:
        deltas = [choice["delta"] for event in sse(response.text) for choice in event["choices"]]
        text = "".join(delta.get("content") or "" for delta in deltas)
    else:
        text = response.json()["choices"][0]["message"]["content"]
    assert text == "Done."
