"""Unmodified clients of others: the service accepts their requests, and they understand its answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anthropic
import instructor
import llm
import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import EMBEDDING, MODEL, FakeTexts
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import OpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, ToolOutput
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from tests.clients.conftest import Scripted, calls, get_weather, running, says, served

NO_KEY = "none"
CITY: dict[str, Any] = {"name": "Paris", "people": 2102650}


class City(BaseModel):
    """A city."""

    name: str
    people: int


TOOL: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def test_openai(url: str, native: bool, backend: Scripted) -> None:
    client = OpenAI(base_url=url, api_key=NO_KEY, max_retries=0)
    question: Any = [{"role": "user", "content": "Weather?"}]
    backend.script = [calls(native, "get_weather", {"city": "Paris"}), says(native, "18 degrees.")]
    first = client.chat.completions.create(model=MODEL, messages=question, tools=[TOOL])
    message = first.choices[0].message
    assert message.tool_calls
    asked: Any = [*question, message, {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "18"}]
    assert client.chat.completions.create(model=MODEL, messages=asked, tools=[TOOL]).choices[0].message.content
    assert "18" in backend.seen[-1][0]

    backend.script = [calls(native, "get_weather", {"city": "Paris"})]
    with client.chat.completions.stream(model=MODEL, messages=question, tools=[TOOL]) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion().choices[0]
    assert "tool_calls.function.arguments.delta" in kinds
    assert final.message.tool_calls
    assert json.loads(final.message.tool_calls[0].function.arguments) == {"city": "Paris"}
    assert final.finish_reason == "tool_calls"

    backend.script = [json.dumps(CITY)]
    parsed = client.chat.completions.parse(model=MODEL, messages=question, response_format=City)
    assert parsed.choices[0].message.parsed == City(**CITY)

    backend.script = [json.dumps(CITY)]
    assert client.responses.parse(model=MODEL, input="Paris?", text_format=City).output_parsed == City(**CITY)

    backend.script = [calls(native, "get_weather", {"city": "Paris"}, forced=True)]
    tool: Any = {"type": "function", "strict": False, **TOOL["function"]}
    with client.responses.stream(model=MODEL, input="Weather?", tools=[tool], tool_choice="required") as events:
        for _ in events:
            pass
        (item,) = events.get_final_response().output
    assert item.type == "function_call"
    assert json.loads(item.arguments) == {"city": "Paris"}


def test_openai_embeds(backend: Scripted) -> None:
    backend.texts = FakeTexts()
    with running(backend) as engine, served(engine) as url:
        client = OpenAI(base_url=url, api_key=NO_KEY, max_retries=0)
        found = client.embeddings.create(model=EMBEDDING.name, input=["Paris", "x"])
        assert [each.embedding for each in found.data] == [[5, ord("P")], [1, ord("x")]]
        # LangChain otherwise sends token ids of OpenAI's own models.
        embeddings = OpenAIEmbeddings(
            base_url=url, api_key=NO_KEY, model=EMBEDDING.name, check_embedding_ctx_length=False
        )
        assert embeddings.embed_query("Paris") == [5, ord("P")]


def test_anthropic(url: str, native: bool, backend: Scripted) -> None:
    client = anthropic.Anthropic(base_url=url.removesuffix("/v1"), api_key=NO_KEY, max_retries=0)
    question: Any = [{"role": "user", "content": "Weather?"}]
    tool: Any = {"name": "get_weather", "input_schema": TOOL["function"]["parameters"]}
    backend.script = [calls(native, "get_weather", {"city": "Paris"}), says(native, "18 degrees.")]
    with client.messages.stream(model=MODEL, max_tokens=500, messages=question, tools=[tool]) as stream:
        (block,) = stream.get_final_message().content
    assert block.type == "tool_use"
    assert block.input == {"city": "Paris"}
    result: Any = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "18"}]}
    asked: Any = [*question, {"role": "assistant", "content": [block.model_dump()]}, result]
    answer = client.messages.create(model=MODEL, max_tokens=500, messages=asked, tools=[tool], system="Be brief.")
    assert [each.text for each in answer.content if each.type == "text"] == ["18 degrees."]
    assert client.messages.count_tokens(model=MODEL, messages=question).input_tokens > 0


def test_langchain(url: str, native: bool, backend: Scripted) -> None:
    model = ChatOpenAI(model=MODEL, base_url=url, api_key=NO_KEY, max_retries=0)
    bound = model.bind_tools([get_weather])
    backend.script = [calls(native, "get_weather", {"city": "Paris"}), says(native, "18 degrees.")]
    first = bound.invoke("Weather?")
    assert [(call["name"], call["args"]) for call in first.tool_calls] == [("get_weather", {"city": "Paris"})]
    result = ToolMessage("18 degrees", tool_call_id=str(first.tool_calls[0]["id"]))
    assert bound.invoke([HumanMessage("Weather?"), first, result]).content == "18 degrees."

    backend.script = [calls(native, "get_weather", {"city": "Paris"})]
    whole = None
    for chunk in bound.stream("Weather?"):
        whole = chunk if whole is None else whole + chunk
    assert whole
    assert whole.tool_calls[0]["args"] == {"city": "Paris"}

    for method in ("json_schema", "function_calling", "json_mode"):
        backend.script = [
            calls(native, "City", CITY, forced=True) if method == "function_calling" else json.dumps(CITY)
        ]
        found = model.with_structured_output(City, method=method).invoke("Paris?")
        assert found == City(**CITY), method


def test_litellm(url: str, native: bool, backend: Scripted, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    import litellm  # noqa: PLC0415 - it downloads prices at its import

    question: Any = [{"role": "user", "content": "Weather?"}]
    for provider in ("openai", "hosted_vllm"):
        common: Any = {"model": f"{provider}/{MODEL}", "api_base": url, "api_key": NO_KEY, "max_retries": 0}
        backend.script = [calls(native, "get_weather", {"city": "Paris"}), says(native, "18 degrees.")]
        first: Any = litellm.completion(messages=question, tools=[TOOL], **common)
        message = first.choices[0].message
        (call,) = message.tool_calls
        assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
        asked = [*question, message, {"role": "tool", "tool_call_id": call.id, "content": "18"}]
        second: Any = litellm.completion(messages=asked, tools=[TOOL], **common)
        assert second.choices[0].message.content == "18 degrees."

        backend.script = [calls(native, "get_weather", {"city": "Paris"})]
        chunks: Any = litellm.completion(messages=question, tools=[TOOL], stream=True, **common)
        whole: Any = litellm.stream_chunk_builder([*chunks], messages=question)
        assert json.loads(whole.choices[0].message.tool_calls[0].function.arguments) == {"city": "Paris"}

        backend.script = [json.dumps(CITY)]
        found: Any = litellm.completion(messages=question, response_format=City, **common)
        assert City.model_validate_json(found.choices[0].message.content) == City(**CITY)
        assert backend.seen[-1][1].structured


def test_llm(url: str, native: bool, backend: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the usual configuration: a file that names the model's address."""
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    model = {"model_id": "node", "model_name": MODEL, "api_base": url, "supports_schema": True, "supports_tools": True}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps([model]))  # which is YAML
    asked = llm.get_model("node")
    backend.script = ["Paris."]
    assert asked.prompt("Capital?", system="Be brief.").text() == "Paris."
    backend.script = [json.dumps(CITY)]
    assert json.loads(asked.prompt("Paris?", schema=City).text()) == CITY
    assert backend.seen[-1][1].structured
    for stream in (True, False):
        backend.script = [calls(native, "get_weather", {"city": "Paris"}), says(native, "18 degrees.")]
        assert asked.chain("Weather?", tools=[get_weather], stream=stream).text() == "18 degrees."
        assert "18 degrees in Paris" in backend.seen[-1][0]


MODES = [
    *(instructor.Mode.TOOLS, instructor.Mode.JSON, instructor.Mode.JSON_SCHEMA, instructor.Mode.MD_JSON),
    instructor.Mode.TOOLS_STRICT,
]


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_instructor(url: str, native: bool, backend: Scripted, mode: Any) -> None:
    client = instructor.from_openai(OpenAI(base_url=url, api_key=NO_KEY, max_retries=0), mode=mode)
    tools = mode in (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT)
    fenced = mode is instructor.Mode.MD_JSON
    text = f"```json\n{json.dumps(CITY)}\n```" if fenced else json.dumps(CITY)
    backend.script = [calls(native, "City", CITY, forced=True) if tools else text]
    question: Any = [{"role": "user", "content": "Paris?"}]
    found = client.chat.completions.create(model=MODEL, messages=question, response_model=City, max_retries=0)
    assert found.model_dump() == CITY


@pytest.mark.parametrize("kind", [OpenAIChatModel, OpenAIResponsesModel])
@pytest.mark.parametrize("output", [NativeOutput, ToolOutput])
@pytest.mark.parametrize("url", ["native"], indirect=True)
def test_pydantic_ai(url: str, native: bool, backend: Scripted, kind: Any, output: Any) -> None:
    model = kind(MODEL, provider=OpenAIProvider(base_url=url, api_key=NO_KEY))
    agent: Any = Agent(model, output_type=output(City), tools=[get_weather], retries=0)
    looked = calls(native, "get_weather", {"city": "Paris"}, forced=True)
    told = calls(native, "final_result", CITY, forced=True) if output is ToolOutput else json.dumps(CITY)
    backend.script = [looked, told]
    assert agent.run_sync("Paris?").output == City(**CITY)
    assert "18 degrees in Paris" in backend.seen[-1][0]
