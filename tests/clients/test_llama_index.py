"""LlamaIndex, unmodified, in an environment of its own."""

from __future__ import annotations

import json

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.clients.conftest import Scripted, calls, get_weather, says


class City(BaseModel):
    """A city."""

    name: str
    people: int


CITY = City(name="Paris", people=2102650)


@pytest.fixture
def asked(url: str) -> OpenAILike:
    return OpenAILike(
        model=MODEL,
        api_base=url,
        api_key="none",
        context_window=32768,
        is_chat_model=True,
        is_function_calling_model=True,
        should_use_structured_outputs=True,
        max_retries=0,
    )


def test_chats_and_texts(url: str, asked: OpenAILike, backend: Scripted) -> None:
    backend.script = ["Paris."] * 3
    assert str(asked.complete("Capital?")) == "Paris."
    parts = asked.stream_chat([ChatMessage(role="user", content="Capital?")])
    assert "".join(part.delta or "" for part in parts) == "Paris."
    text = OpenAILike(model=MODEL, api_base=url, api_key="none", is_chat_model=False, max_retries=0)
    assert str(text.complete("Capital?")) == "Paris."


def test_tools(asked: OpenAILike, native: bool, backend: Scripted) -> None:
    tool = FunctionTool.from_defaults(fn=get_weather)
    backend.script = [calls(native, "get_weather", {"city": "Paris"})]
    (call,) = asked.get_tool_calls_from_response(asked.chat_with_tools([tool], "Weather?"))
    assert (call.tool_name, call.tool_kwargs) == ("get_weather", {"city": "Paris"})
    backend.script = [calls(native, "get_weather", {"city": "Paris"})]
    assert str(asked.predict_and_call([tool], "Weather?")) == "18 degrees in Paris"
    history = [ChatMessage(role="user", content="Weather?")]
    backend.script = [says(native, "18 degrees.")]
    assert asked.chat_with_tools([tool], chat_history=history).message.content == "18 degrees."


def test_structured_answers(asked: OpenAILike, backend: Scripted) -> None:
    backend.script = [json.dumps(CITY.model_dump())]
    assert asked.as_structured_llm(City).complete("Paris?").raw == CITY
    assert backend.seen[-1][1].structured
