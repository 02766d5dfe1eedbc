"""The official client, unmodified, over a real connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, FakeBackend
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_api import occupy
from openai import OpenAI
from xpuserve.engine.loop import Engine

ANSWER = "Paris is the capital of France."
QUESTION: Any = [{"role": "user", "content": "Where?"}]


@pytest.fixture
def client(url: str) -> Iterator[OpenAI]:
    # One that tries again would hide a refusal.
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_models(client: OpenAI) -> None:
    assert [model.id for model in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "xpuserve"
    with pytest.raises(openai.NotFoundError) as raised:
        client.models.retrieve("gpt-4")
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_a_chat(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=0, stop=["zz"], user="u")
    assert answer.id.startswith("chatcmpl-")
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 31, 37)


def test_a_chat_with_two_short_answers(client: OpenAI) -> None:
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, n=2, max_completion_tokens=5, seed=1)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(0, "Paris"), (1, "Paris")]
    assert {choice.finish_reason for choice in answer.choices} == {"length"}


def test_a_streamed_chat(client: OpenAI) -> None:
    options: Any = {"include_usage": True}
    chunks = list(
        client.chat.completions.create(
            model=MODEL, messages=QUESTION, stream=True, stream_options=options, max_tokens=5
        )
    )
    assert chunks[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == "Paris"
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * (len(chunks) - 2) + ["length"]
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage
    assert chunks[-1].usage.completion_tokens == 5


def test_the_clients_own_assembly_of_a_stream(client: OpenAI) -> None:
    with client.chat.completions.stream(model=MODEL, messages=QUESTION, n=2) as stream:
        for _ in stream:
            pass
        final = stream.get_final_completion()
    assert [choice.message.content for choice in final.choices] == [ANSWER] * 2


def test_completions(client: OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=["a", "b"], max_tokens=5)
    assert answer.id.startswith("cmpl-")
    assert [choice.text for choice in answer.choices] == ["Paris", "Paris"]
    stream = client.completions.create(model=MODEL, prompt="a", stream=True, stop=" is")
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks) == "Paris"
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_bad_requests(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=MODEL, messages=QUESTION, temperature=3)
    assert raised.value.param == "temperature"
    assert raised.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(model=MODEL, messages=QUESTION, logprobs=True)
    assert (raised.value.param, raised.value.code) == ("logprobs", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="gpt-4", messages=QUESTION)


def test_a_full_queue(client: OpenAI, engine: Engine, backend: FakeBackend) -> None:
    occupy(engine, backend, waiting=2)
    with pytest.raises(openai.RateLimitError) as raised:
        client.chat.completions.create(model=MODEL, messages=QUESTION)
    assert int(raised.value.response.headers["retry-after"]) >= 1
    assert raised.value.code == "queue_full"


def test_a_stream_that_fails_and_an_answer_that_fails(client: OpenAI) -> None:
    crash: Any = [{"role": "user", "content": "CRASH"}]
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model=MODEL, messages=crash)
    with pytest.raises(openai.APIError) as raised:
        list(client.chat.completions.create(model=MODEL, messages=crash, stream=True))
    assert raised.value.code == "engine_error"


def test_leaving_a_stream_stops_the_engine(client: OpenAI, backend: FakeBackend) -> None:
    wait: Any = [{"role": "user", "content": "WAIT"}]
    with client.chat.completions.create(model=MODEL, messages=wait, stream=True) as stream:
        assert next(stream)
        assert backend.answering.wait(60)
    backend.may_answer.set()
    assert backend.closed.wait(60)
    assert client.chat.completions.create(model=MODEL, messages=QUESTION).choices[0].message.content == ANSWER
