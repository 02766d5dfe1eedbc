from __future__ import annotations

import json
import queue
import re
import socket
import threading
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Union
from unittest.mock import MagicMock, patch

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import CONTEXT, LIMITS, MODEL, FakeBackend, wait_for
from fastapi.testclient import TestClient
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.api.schema import NOT_OFFERED
from xpuserve.client import APIClient
from xpuserve.engine.loop import Engine
from xpuserve.engine.queue import QueueFullError
from xpuserve.engine.request import Event, Failed, Finished, Piece, Request, SamplingParams
from xpuserve.keys import Keys

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
ANSWER = "Paris is the capital of France."


def chat(prompt: str = "Where?", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}


def text(prompt: Union[str, list[str]] = "Where?", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "prompt": prompt, **more}


def sse(body: str) -> list[Any]:
    """The events of a stream, which must be well-formed and end with [DONE]."""
    events = body.split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    assert all(event.startswith("data: ") for event in events)
    return [json.loads(event[len("data: ") :]) for event in events]


def error(response: Any) -> dict[str, Any]:
    """The error of a response, which must be in OpenAI's shape."""
    body = response.json()
    assert body.keys() == {"error"}
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert body["error"]["message"]
    return dict(body["error"])


def test_a_whole_chat_answer(client: TestClient) -> None:
    body = client.post(CHAT, json=chat()).json()
    assert body["object"] == "chat.completion"
    assert body["model"] == MODEL
    assert body["choices"][0]["message"] == {"role": "assistant", "content": ANSWER}
    assert body["choices"][0]["finish_reason"] == "stop"
    assert body["usage"] == {"prompt_tokens": 6, "completion_tokens": 31, "total_tokens": 37}


def test_a_whole_text_answer(client: TestClient, backend: FakeBackend) -> None:
    body = client.post(TEXT, json=text(max_tokens=5)).json()
    assert body["object"] == "text_completion"
    assert body["choices"][0]["text"] == "Paris"
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["prompt_tokens"] == 7  # a plain text begins with BOS


def test_a_streamed_chat_answer(client: TestClient, backend: FakeBackend) -> None:
    backend.answer = "Größe 😀"
    response = client.post(CHAT, json=chat(stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    events = sse(response.text)
    *chunks, last, usage = events
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:]] == list(backend.answer)
    assert last["choices"][0] == {"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert usage["choices"] == []
    assert [event["usage"] for event in events[:-1]] == [None] * (len(events) - 1)
    assert usage["usage"]["completion_tokens"] == len(backend.answer.encode())
    assert {event["object"] for event in events} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events}) == 1


def test_a_streamed_text_answer(client: TestClient) -> None:
    events = sse(client.post(TEXT, json=text(stream=True)).text)
    assert "".join(event["choices"][0]["text"] for event in events) == ANSWER
    assert "usage" not in events[-1]


def test_a_text_goes_on_with_a_space_and_a_chat_does_not_begin_with_one(
    client: TestClient, engine: Engine, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = backend.fake_tokenizer.decode
    monkeypatch.setattr(engine, "_decode", lambda ids: decode(ids).lstrip(" "))  # as Llama's does
    backend.answer = " Paris"
    assert client.post(TEXT, json=text("The capital of France is")).json()["choices"][0]["text"] == " Paris"
    assert client.post(CHAT, json=chat()).json()["choices"][0]["message"]["content"] == "Paris"


@pytest.mark.parametrize("stream", [False, True])
def test_stop_sequences(client: TestClient, stream: bool) -> None:
    response = client.post(TEXT, json=text(stop=["capital", "is"], stream=stream))
    choices = [event["choices"][0] for event in (sse(response.text) if stream else [response.json()])]
    assert "".join(choice["text"] for choice in choices) == "Par"
    assert choices[-1]["finish_reason"] == "stop"


def test_the_end_of_an_answer_that_looked_like_a_stop_sequence_is_not_lost(
    client: TestClient, backend: FakeBackend
) -> None:
    backend.answer = "an EN"
    assert client.post(TEXT, json=text(stop="END")).json()["choices"][0]["text"] == "an EN"


def test_sampling_reaches_the_engine(client: TestClient, backend: FakeBackend) -> None:
    client.post(CHAT, json=chat(temperature=0, top_p=0.5, seed=7, max_completion_tokens=9, stop="x"))
    assert backend.seen[-1][1] == SamplingParams(max_tokens=9, temperature=0, top_p=0.5, seed=7, stop=("x",))
    client.post(CHAT, json=chat())
    assert backend.seen[-1][1] == SamplingParams(max_tokens=40, temperature=1.0, top_p=1.0)


def test_the_default_length_is_what_the_context_has_left(client: TestClient, backend: FakeBackend) -> None:
    client.post(CHAT, json=chat("x" * 60))
    assert backend.seen[-1][1].max_tokens == CONTEXT - 60


def test_text_parts_and_developer_messages_are_understood(client: TestClient, backend: FakeBackend) -> None:
    parts = [{"type": "text", "text": "Wh"}, {"type": "text", "text": "ere?"}]
    messages = [{"role": "developer", "content": "x"}, {"role": "user", "content": parts}]
    assert client.post(CHAT, json={"model": MODEL, "messages": messages}).status_code == 200
    assert backend.seen[-1][0] == "Where?"


def test_steps_without_a_token_are_not_counted(client: TestClient) -> None:
    answer = client.post(CHAT, json=chat("PARTS")).json()
    assert answer["choices"][0]["message"]["content"] == ANSWER
    assert answer["usage"]["completion_tokens"] == 31


def test_every_way_of_sampling_reaches_the_engine(client: TestClient, backend: FakeBackend) -> None:
    options: dict[str, Any] = {
        **{"temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.1, "ignore_eos": True},
        **{"repetition_penalty": 1.5, "presence_penalty": 1.0, "frequency_penalty": -1.0},
    }
    client.post(TEXT, json=text(max_tokens=2, **options))
    assert backend.seen[-1][1] == SamplingParams(max_tokens=2, **options)
    client.post(TEXT, json=text(max_tokens=2, top_k=-1, temperature=None, n=None))
    assert backend.seen[-1][1] == SamplingParams(max_tokens=2)


@pytest.mark.parametrize("path", [CHAT, TEXT])
def test_several_answers_have_a_seed_each(client: TestClient, backend: FakeBackend, path: str) -> None:
    body = (chat if path == CHAT else text)(n=2, seed=5, max_tokens=5)
    answer = client.post(path, json=body).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert [sampling.seed for _, sampling in backend.seen] == [5, 6]
    assert answer["usage"]["completion_tokens"] == 10
    assert answer["usage"]["prompt_tokens"] in (6, 7)  # counted once
    events = sse(client.post(path, json={**body, "stream": True}).text)
    ends = {choice["index"]: choice["finish_reason"] for event in events for choice in event["choices"]}
    assert ends == {0: "length", 1: "length"}


def test_several_prompts(client: TestClient, backend: FakeBackend) -> None:
    answer = client.post(TEXT, json=text(["a", "bc"], n=2, max_tokens=1)).json()
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
    assert [prompt for prompt, _ in backend.seen] == ["a", "a", "bc", "bc"]
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 4, "total_tokens": 9}


@pytest.mark.parametrize("field", [{"prompt": []}, {"prompt": 5}, {"prompt": [True]}, {"logprobs": 0}, {"best_of": 2}])
def test_what_a_text_can_not_have(client: TestClient, backend: FakeBackend, field: dict[str, Any]) -> None:
    response = client.post(TEXT, json={**text(), **field})
    assert response.status_code == 400
    assert error(response)["param"].split(".")[0] in field
    assert backend.seen == []


def test_what_asks_for_what_is_done_anyway_is_accepted(client: TestClient) -> None:
    neutral = {name: values[0] for name, values in NOT_OFFERED.items() if values}
    assert client.post(CHAT, json={**chat(), **neutral}).status_code == 200
    assert client.post(CHAT, json={**chat(user="u", x=5), **dict.fromkeys(NOT_OFFERED)}).status_code == 200


def test_models(client: TestClient) -> None:
    assert [model["id"] for model in client.get("/v1/models").json()["data"]] == [MODEL]
    assert client.get(f"/v1/models/{MODEL}").json()["id"] == MODEL
    assert error(client.get("/v1/models/org/other"))["code"] == "model_not_found"


BAD_BODIES = {
    "not JSON": ("{", 400, None),
    "not an object": ([], 400, None),
    "no messages": ({"model": MODEL}, 400, "messages"),
    "empty messages": ({"model": MODEL, "messages": []}, 400, "messages"),
    "another model": ({**chat(), "model": "gpt-4"}, 404, "model"),
    "model of a wrong type": ({**chat(), "model": 5}, 400, "model"),
    "content of a wrong type": (
        {"model": MODEL, "messages": [{"role": "user", "content": 5}]},
        400,
        "messages.0.content",
    ),
    "half a surrogate": (chat("\ud800"), 400, "messages.0.content"),
    "a model of half a surrogate": ({**chat(), "model": "\ud800"}, 400, "model"),
    "unknown role": ({"model": MODEL, "messages": [{"role": "robot", "content": "x"}]}, 400, "messages.0.role"),
    "template refuses": ({"model": MODEL, "messages": [{"role": "assistant", "content": "x"}]}, 400, "messages"),
    "temperature too high": (chat(temperature=2.1), 400, "temperature"),
    "temperature below 0": (chat(temperature=-0.1), 400, "temperature"),
    "temperature of a wrong type": (chat(temperature="0.5"), 400, "temperature"),
    "temperature is not a number": (json.dumps(chat(temperature=float("nan"))), 400, "temperature"),
    "top_p 0": (chat(top_p=0), 400, "top_p"),
    "no tokens": (chat(max_tokens=0), 400, "max_tokens"),
    "max_tokens of a wrong type": (chat(max_tokens=1.5), 400, "max_tokens"),
    "more tokens than the context": (chat(max_tokens=10**30), 400, "max_tokens"),
    "more tokens at least than at most": (chat(min_tokens=6, max_tokens=5), 400, "min_tokens"),
    "more tokens at least than there is room for": (chat(min_tokens=60), 400, "min_tokens"),
    "prompt and answer longer than the context": (chat("x" * 60, max_tokens=5), 400, "max_tokens"),
    "prompt longer than the context": (chat("x" * 64), 400, "messages"),
    "empty prompt": (chat(""), 400, "messages"),
    "stream of a wrong type": (chat(stream="yes"), 400, "stream"),
    "stop of a wrong type": (chat(stop=5), 400, "stop"),
    "empty stop": (chat(stop=""), 400, "stop"),
    "too many stops": (chat(stop=["a"] * 65), 400, "stop"),
    "no answer": (chat(n=0), 400, "n"),
    "too many answers": (chat(n=9), 400, "n"),
    "a penalty too high": (chat(presence_penalty=2.1), 400, "presence_penalty"),
    "a penalty too low": (chat(frequency_penalty=-2.1), 400, "frequency_penalty"),
    "a repetition penalty of 0": (chat(repetition_penalty=0), 400, "repetition_penalty"),
    "min_p 1": (chat(min_p=1), 400, "min_p"),
    "top_k of a wrong type": (chat(top_k=1.5), 400, "top_k"),
    "logprobs": (chat(logprobs=True), 400, "logprobs"),
    "a salt": (chat(cache_salt="x"), 400, "cache_salt"),
    "an empty salt": (chat(cache_salt=""), 400, "cache_salt"),
    "a bias": (chat(logit_bias={"5": 100}), 400, "logit_bias"),
    "tools without a type": (chat(tools=[{"function": {"name": "f"}}]), 400, "tools.0.type"),
    "a schema": (chat(response_format={"type": "json_object"}), 400, "response_format"),
    "tool calls": (
        {"model": MODEL, "messages": [{"role": "assistant", "content": "x", "tool_calls": [{}]}]},
        400,
        "messages.0.tool_calls.0.function",
    ),
    "stream options without a stream": (chat(stream_options={"include_usage": True}), 400, "stream_options"),
    "seed of a wrong type": (chat(seed="x"), 400, "seed"),
}


@pytest.mark.parametrize(("body", "status", "param"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_bad_requests_are_refused_and_the_service_goes_on(
    client: TestClient, backend: FakeBackend, body: Union[str, dict[str, Any]], status: int, param: str
) -> None:
    content = body if isinstance(body, str) else json.dumps(body)
    response = client.post(CHAT, content=content, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    problem = error(response)
    assert problem["type"] == "invalid_request_error"
    if param:
        assert problem["param"] == param
    assert backend.seen == []
    assert client.post(CHAT, json=chat()).status_code == 200


def test_a_body_longer_than_any_prompt_is_not_read(client: TestClient, backend: FakeBackend) -> None:
    response = client.post(CHAT, json=chat("x" * 70000))
    assert response.status_code == 413
    assert error(response)["code"] == "body_too_large"
    assert backend.seen == []
    assert client.post(CHAT, json=chat("x" * 60000)).status_code == 400


@pytest.mark.parametrize(
    ("body", "media_type"),
    [(json.dumps(chat()), "application/x-www-form-urlencoded"), ("[]", "application/json"), ("", "application/json")],
)
def test_a_body_that_is_no_json_object_is_told_what_it_must_be(client: TestClient, body: str, media_type: str) -> None:
    response = client.post(CHAT, content=body, headers={"Content-Type": media_type})
    assert response.status_code == 400
    assert error(response)["message"] == "the body must be a JSON object, of type application/json"


@pytest.mark.parametrize(
    "body", [b'{"model": "\xff"}', b"[" * 50000, b'{"a":' * 10000, b'{"max_tokens": %s}' % (b"9" * 5000)]
)
def test_bodies_that_no_parser_takes_are_refused(client: TestClient, body: bytes) -> None:
    response = client.post(CHAT, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert error(response)["type"] == "invalid_request_error"


def test_unknown_paths_and_methods_are_errors_in_the_same_shape(client: TestClient) -> None:
    response = client.get("/v1/nothing")
    assert response.status_code == 404
    error(response)
    response = client.get(CHAT)
    assert response.status_code == 405
    error(response)


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_fails_at_once_is_a_500(client: TestClient, stream: bool) -> None:
    response = client.post(CHAT, json=chat("EARLY", stream=stream))
    assert response.status_code == 500
    assert error(response)["code"] == "engine_error"
    assert client.post(CHAT, json=chat()).status_code == 200


def test_an_engine_that_fails_later_is_a_500_or_an_error_event(client: TestClient) -> None:
    assert client.post(CHAT, json=chat("CRASH")).status_code == 500
    response = client.post(CHAT, json=chat("CRASH", stream=True))
    assert response.status_code == 200
    assert sse(response.text)[-1]["error"]["code"] == "engine_error"
    assert client.get("/health").status_code == 200
    assert client.post(CHAT, json=chat()).status_code == 200


def test_a_bug_is_a_500_in_the_same_shape(client: TestClient, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine.encoder, "encode_chat", lambda *arguments: 1 // 0)
    response = client.post(CHAT, json=chat())
    assert response.status_code == 500
    assert error(response)["type"] == "server_error"


def occupy(engine: Engine, backend: FakeBackend, waiting: int = 0) -> queue.Queue[Event]:
    """Let the engine work on a request that does not end, with others waiting."""
    events: queue.Queue[Event] = queue.Queue()
    engine.submit(Request("first", list(b"WAIT"), SamplingParams(31), events.put))
    assert backend.answering.wait(60)
    for n in range(waiting):
        engine.submit(Request(f"waiting{n}", list(b"x"), SamplingParams(1), events.put))
    return events


def test_a_full_queue_is_a_429(client: TestClient, engine: Engine, backend: FakeBackend) -> None:
    events = occupy(engine, backend, waiting=2)
    response = client.post(CHAT, json=chat())
    assert response.status_code == 429
    assert response.headers["retry-after"] == "1"
    assert error(response)["code"] == "queue_full"
    backend.may_answer.set()
    finished = 0
    while finished < 3:
        finished += isinstance(events.get(timeout=60), Finished)
    assert client.post(CHAT, json=chat()).status_code == 200


def test_a_queue_is_full_by_the_tokens_of_its_prompts_too(backend: FakeBackend) -> None:
    engine = Engine(backend, prompt_format="tokenizer", warm_up=False, queue_tokens=10)
    engine.start()
    events = occupy(engine, backend)
    engine.submit(Request("longer than the queue", list(b"x" * 11), SamplingParams(1), events.put))
    with pytest.raises(QueueFullError):
        engine.submit(Request("later", list(b"x"), SamplingParams(1), events.put))
    backend.may_answer.set()
    wait_for(lambda: engine.waiting == 0)
    requests = [Request(f"{n}", list(b"xxxxxx"), SamplingParams(1), events.put) for n in range(2)]
    engine.submit(*requests)  # nothing waits, so the two may though they are more than 10 tokens
    engine.stop(5)
    assert events.qsize() == 31 + 1 + 3 * 2


def test_several_answers_are_queued_together_or_not_at_all(
    client: TestClient, engine: Engine, backend: FakeBackend
) -> None:
    occupy(engine, backend, waiting=1)
    assert client.post(CHAT, json=chat(n=2)).status_code == 429
    assert engine.waiting == 1


@pytest.fixture
def may_encode(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Until it is set, no prompt of a chat is encoded."""
    event, encode = threading.Event(), engine.encoder.encode_chat

    def wait(*arguments: Any) -> list[int]:
        assert event.wait(60)
        return encode(*arguments)

    monkeypatch.setattr(engine.encoder, "encode_chat", wait)
    yield event
    event.set()


def test_prompts_that_are_encoded_have_places_in_the_queue(
    client: TestClient, engine: Engine, may_encode: threading.Event
) -> None:
    with ThreadPoolExecutor(2) as pool:
        try:
            encoded = [pool.submit(client.post, CHAT, json=chat()) for _ in range(2)]
            wait_for(lambda: engine.waiting == 2)
            assert re.search(r"^vllm:num_requests_waiting{.*} 2\.0$", client.get("/metrics").text, re.MULTILINE)
            for refused in (client.post(CHAT, json=chat()), client.post(TEXT, json=text())):
                assert (refused.status_code, error(refused)["code"]) == (429, "queue_full")
        finally:
            may_encode.set()
        assert [response.result().status_code for response in encoded] == [200, 200]
    assert engine.waiting == 0


def test_the_time_in_which_a_prompt_is_encoded_counts(
    engine: Engine, backend: FakeBackend, may_encode: threading.Event
) -> None:
    client = TestClient(create_app(engine, MODEL, Limits(CONTEXT, 40, request_timeout=2)))
    with patch.object(backend.fake_tokenizer, "template", MagicMock()) as template:
        template.format.side_effect = str
        for prompt in ("is encoded", "waits for that"):
            response = client.post(CHAT, json=chat(prompt))
            assert (response.status_code, error(response)["code"]) == (504, "deadline_exceeded")
            assert engine.waiting == 0
        may_encode.set()
        assert client.post(CHAT, json=chat("last")).status_code == 200
    assert [call.args for call in template.format.call_args_list] == [("is encoded",), ("last",)]
    assert [prompt for prompt, _ in backend.seen] == ["last"]


def test_a_client_that_leaves_while_its_prompt_is_encoded_frees_its_place(
    url: str, engine: Engine, may_encode: threading.Event
) -> None:
    body = json.dumps(chat()).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2]))) as connection:
        connection.sendall(head.encode() + body)
        wait_for(lambda: engine.waiting == 1)
    wait_for(lambda: engine.waiting == 0)


def test_a_client_is_told_when_to_come_back(client: TestClient, engine: Engine, backend: FakeBackend) -> None:
    occupy(engine, backend, waiting=2)
    for mean, seconds in ((0.2, "1"), (7.1, "8"), (1000, "60")):
        engine._mean_seconds = mean
        assert client.post(CHAT, json=chat()).headers["retry-after"] == seconds


@pytest.mark.parametrize("prompt", ["Where?", "WAIT"])  # waiting for its turn, and under way
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_ends(engine: Engine, backend: FakeBackend, prompt: str, stream: bool) -> None:
    client = TestClient(create_app(engine, MODEL, Limits(CONTEXT, 40, request_timeout=0.2)))
    if prompt == "Where?":
        occupy(engine, backend)
    response = client.post(CHAT, json=chat(prompt, stream=stream))
    if stream and prompt == "WAIT":
        problem = sse(response.text)[-1]["error"]
    else:
        assert response.status_code == 504
        assert response.headers["x-should-retry"] == "false"
        problem = error(response)
    assert problem["code"] == "deadline_exceeded"
    assert engine.waiting == 0
    backend.may_answer.set()
    patient = TestClient(create_app(engine, MODEL, Limits(CONTEXT, 40)))
    assert patient.post(CHAT, json=chat()).status_code == 200


def test_an_engine_that_ends_answers_those_who_wait_and_those_who_come(engine: Engine, backend: FakeBackend) -> None:
    events: queue.Queue[Event] = queue.Queue()
    engine.submit(Request("first", list(b"WAIT EXIT"), SamplingParams(31), events.put))
    engine.submit(Request("waiting", list(b"x"), SamplingParams(1), events.put))
    assert events.get(timeout=60) == Piece("P")
    assert events.get(timeout=60) == events.get(timeout=60) == Failed("the engine ended")
    engine.submit(Request("late", list(b"x"), SamplingParams(1), events.put))
    assert events.get(timeout=60) == Failed("the engine ended")


def test_when_the_service_ends_what_has_begun_goes_on_and_what_waits_is_refused(
    client: TestClient, engine: Engine, backend: FakeBackend
) -> None:
    with ThreadPoolExecutor(2) as pool:
        begun = pool.submit(client.post, CHAT, json=chat("WAIT", n=2))
        assert backend.answering.wait(60)
        waiting = pool.submit(client.post, CHAT, json=chat())
        wait_for(lambda: engine.waiting == 2)  # one of them is the second answer of what has begun
        engine.drain(Failed("the server is shutting down", "shutting_down"))
        for refused in (waiting.result(), client.post(CHAT, json=chat())):
            assert (refused.status_code, error(refused)["code"]) == (503, "shutting_down")
            assert refused.headers["retry-after"]
        backend.may_answer.set()
        choices = begun.result().json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == [ANSWER, ANSWER]


def test_an_engine_that_ends_while_it_loads_says_so(backend: FakeBackend) -> None:
    backend.load_error = SystemExit()
    failed = threading.Event()
    Engine(backend, prompt_format="tokenizer", on_failed=failed.set).start()
    assert failed.wait(60)


def test_only_the_engines_thread_touches_the_model(client: TestClient, backend: FakeBackend) -> None:
    client.post(CHAT, json=chat())
    assert backend.threads == {"engine"}


def test_not_ready_before_it_is_warm(backend: FakeBackend) -> None:
    backend.may_load.clear()
    engine = Engine(backend, prompt_format="tokenizer")
    engine.start()
    client = TestClient(create_app(engine, MODEL, LIMITS))
    assert client.get("/health").status_code == 200
    assert client.get("/ready").status_code == 503
    response = client.post(CHAT, json=chat())
    assert response.status_code == 503
    assert error(response)["code"] == "not_ready"
    assert backend.seen == []
    backend.may_load.set()
    wait_for(lambda: client.get("/ready").status_code == 200)
    assert backend.seen == [("Hello", SamplingParams(max_tokens=8, temperature=0))]  # the warm-up
    engine.stop(5)


def test_an_engine_that_hangs_is_not_healthy(engine: Engine, backend: FakeBackend) -> None:
    client = TestClient(create_app(engine, MODEL, LIMITS, stall_timeout=0.2))
    events = occupy(engine, backend)
    for path in ("/health", "/ready"):
        wait_for(lambda path=path: client.get(path).status_code == 503)  # type: ignore[misc]
        assert client.get(path).json()["status"].startswith("the engine has work, but no step ended for")
    backend.may_answer.set()
    while not isinstance(events.get(timeout=60), Finished):
        pass
    wait_for(lambda: client.get("/ready").status_code == 200)
    assert engine.stalled_seconds == 0


def test_an_engine_is_healthy_while_it_ends_steps_and_while_it_is_idle(engine: Engine, backend: FakeBackend) -> None:
    ticks = iter(range(0, 10**6, 10))
    with patch("xpuserve.engine.loop.time", SimpleNamespace(monotonic=lambda: next(ticks))):
        assert engine.stalled_seconds == 0  # idle, however long
        occupy(engine, backend)  # steps have ended
        assert engine.stalled_seconds == 10
        assert engine.stalled_seconds == 20
        backend.may_answer.set()
        wait_for(lambda: engine.running == 0)
        assert engine.stalled_seconds == 0


def test_a_model_that_does_not_load_is_never_ready(backend: FakeBackend) -> None:
    backend.load_error = MemoryError()
    failed = threading.Event()
    engine = Engine(backend, prompt_format="tokenizer", on_failed=failed.set)
    engine.start()
    assert failed.wait(60)
    client = TestClient(create_app(engine, MODEL, LIMITS))
    wait_for(lambda: client.get("/health").status_code == 503)
    assert client.get("/ready").status_code == 503


def cancelled(engine: Engine) -> bool:
    return any(request.cancelled for request in list(engine._answers))


def pieces(url: str, body: dict[str, Any]) -> Generator[str, None, None]:
    with closing(APIClient(url).events(body)) as events:
        yield from (event.text for event in events if event.text)


def test_a_client_that_leaves_a_stream_stops_the_engine(url: str, engine: Engine, backend: FakeBackend) -> None:
    stream = pieces(url, chat("WAIT"))
    assert next(stream) == "P"
    assert backend.answering.wait(60)
    stream.close()
    wait_for(lambda: cancelled(engine))
    backend.may_answer.set()
    assert backend.closed.wait(60)
    assert backend.tokens == 3  # the two that had come and one that was under way
    assert "".join(pieces(url, chat())) == ANSWER


def test_a_client_that_leaves_while_it_waits_is_never_served(url: str, engine: Engine, backend: FakeBackend) -> None:
    occupy(engine, backend)
    connection = APIClient(url)._connect()
    connection.request("POST", CHAT, json.dumps(chat("LEFT")), {"Content-Type": "application/json"})
    wait_for(lambda: engine.waiting == 1)
    connection.close()
    wait_for(lambda: engine.waiting == 0)  # at once, not when its turn comes
    backend.may_answer.set()
    assert "".join(pieces(url, chat())) == ANSWER
    assert "LEFT" not in [prompt for prompt, _ in backend.seen]


def test_scripts_of_named_pages_may_ask(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "keys").touch(0o600)
    (tmp_path / "keys").write_text("secret-of-anna-0123456789\n")
    keys = Keys(tmp_path / "keys")
    client = TestClient(create_app(engine, MODEL, LIMITS, keys, origins=["https://chat.example.com"]))
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-stainless-os"}
    told = client.options(CHAT, headers={"Origin": "https://chat.example.com", **asked})
    assert told.status_code == 200
    assert told.headers["access-control-allow-origin"] == "https://chat.example.com"
    assert "x-stainless-os" in told.headers["access-control-allow-headers"]
    assert "access-control-allow-credentials" not in told.headers
    refused = client.post(CHAT, json=chat(), headers={"Origin": "https://chat.example.com"})
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (401, "https://chat.example.com")
    other = client.options(CHAT, headers={"Origin": "https://other.example.com", **asked})
    assert "access-control-allow-origin" not in other.headers


def test_a_stream_begins_before_its_first_token_and_is_kept_alive(
    url: str, engine: Engine, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xpuserve.api.completer.BEGUN_SECONDS", 0.05)
    monkeypatch.setattr("xpuserve.api.completer.WAITING_SECONDS", 0.1)
    monkeypatch.setattr("xpuserve.api.sse.COMMENT_SECONDS", 0.05)
    occupy(engine, backend)
    connection = HTTPConnection(url.removeprefix("http://"), timeout=60)
    with closing(connection):
        connection.request("POST", CHAT, json.dumps(chat(stream=True)), {"Content-Type": "application/json"})
        response = connection.getresponse()
        assert response.status == 200
        for _turn in range(2):
            assert (response.readline(), response.readline()) == (b": no token yet\n", b"\n")
        backend.may_answer.set()
        lines = response.read().decode()
    assert "".join(event["choices"][0]["delta"].get("content", "") for event in sse(without_comments(lines))) == ANSWER


def without_comments(text: str) -> str:
    return "".join(f"{event}\n\n" for event in text.split("\n\n") if event and not event.startswith(":"))


def test_a_stream_that_fails_before_its_headers_has_a_status(
    client: TestClient, engine: Engine, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xpuserve.api.completer.BEGUN_SECONDS", 0.05)
    occupy(engine, backend)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.post, CHAT, json=chat(stream=True))
        wait_for(lambda: engine.waiting == 1)
        engine.drain(Failed("the server is shutting down", "shutting_down"))
        assert waiting.result().status_code == 503
