"""Embeddings and rerank: requests, their turns, and their way to the engine's process."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import (
    EMBEDDING,
    LIMITS,
    MODEL,
    RERANK,
    FakeBackend,
    FakeTexts,
    wait_for,
)
from ansible_collections.xpu.fleet.tests.unit.xpuserve.process import serving
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_document import check
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_metrics import read
from fastapi.testclient import TestClient
from openai import OpenAI
from xpuserve import text_models
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.engine.backend import EngineLostError
from xpuserve.engine.channel import Channel
from xpuserve.engine.loop import Engine
from xpuserve.engine.messages import RemoteError
from xpuserve.engine.queue import QueueFullError
from xpuserve.engine.remote_texts import RemoteTexts, serve
from xpuserve.engine.request import Failed
from xpuserve.engine.runner import OutOfMemoryError
from xpuserve.engine.texts import PORTION_TEXTS, TextJob, TextQueue, TextsFailedError
from xpuserve.keys import Keys
from xpuserve.metrics import Metrics
from xpuserve.settings import Settings
from xpuserve.weights import WeightsError

EMBED, RANK = "/v1/embeddings", "/v1/rerank"
MODELS = {"embedding": EMBEDDING, "rerank": RERANK}


@pytest.fixture
def texts(backend: FakeBackend) -> Iterator[FakeTexts]:
    """The models beside the one of the fixture `engine`."""
    backend.texts = models = FakeTexts()
    yield models
    models.may_answer.set()


@pytest.fixture
def client(engine: Engine, texts: FakeTexts) -> TestClient:
    return TestClient(create_app(engine, MODEL, LIMITS, texts=MODELS), raise_server_exceptions=False)


def test_openais_client_gets_vectors(client: TestClient) -> None:
    with OpenAI(base_url="http://testserver/v1", api_key="none", http_client=client, max_retries=0) as openai:
        found = openai.embeddings.create(model="fake-embedding", input=["Paris", "x"])
        assert [(each.index, each.embedding) for each in found.data] == [(0, [5, ord("P")]), (1, [1, ord("x")])]
        assert (found.model, found.usage.prompt_tokens, found.usage.total_tokens) == ("fake-embedding", 6, 6)
        single = openai.embeddings.create(model="fake-embedding", input="Paris", encoding_format="float")
        assert single.data[0].embedding == [5, ord("P")]


def test_documents_come_in_the_order_of_their_relevance(client: TestClient) -> None:
    body = {"model": "fake-rerank", "query": "abc", "documents": ["a", {"text": "cab"}, "xy", "ba"]}
    answer = client.post(RANK, json=body).json()
    assert [(each["index"], each["document"]["text"]) for each in answer["results"]] == [
        (1, "cab"),
        (3, "ba"),
        (0, "a"),
        (2, "xy"),
    ]
    assert answer["results"][0]["relevance_score"] == 1
    assert answer["usage"] == {"prompt_tokens": 20, "total_tokens": 20}
    best = client.post(RANK, json={**body, "top_n": 1, "return_documents": False}).json()["results"]
    assert best == [{"index": 1, "relevance_score": 1}]


@pytest.mark.parametrize(
    ("path", "body", "answer"),
    [
        (EMBED, {"input": ["x", ""]}, (400, "input.1", "the text is empty")),
        (EMBED, {"input": ""}, (400, "input", "the text is empty")),
        (EMBED, {"input": []}, (400, "input", "the list is empty")),
        (EMBED, {"input": [1, 2]}, (400, "input", "token ids are not supported")),
        (EMBED, {"input": [[1, 2]]}, (400, "input", "token ids are not supported")),
        (EMBED, {"input": ["x", None]}, (400, "input", "it must be a string, or a list of strings")),
        (EMBED, {"input": ["x"] * 2049}, (400, "input", "there are 2049 texts, and 2048 is the maximum")),
        (EMBED, {}, (400, "input", "required")),
        (EMBED, {"input": "x", "dimensions": 64}, (400, "dimensions", "does not support")),
        (EMBED, {"input": "x", "encoding_format": "int8"}, (400, "encoding_format", "'float' or 'base64'")),
        (EMBED, {"input": ["x", "x" * 101]}, (400, "input.1", "is 100 tokens. However, input.1 has 101 tokens")),
        (EMBED, {"input": "x", "model": "x"}, (404, "model", "unknown model 'x'; for /v1/embeddings it has 'fake-emb")),
        (EMBED, {"input": "x", "model": MODEL}, (404, "model", "'fake-1b' is this server's chat model")),
        (EMBED, {"input": "x", "model": "fake-rerank"}, (404, "model", "'fake-rerank' is this server's rerank model")),
        (RANK, {"query": "", "documents": ["x"]}, (400, "query", "the text is empty")),
        (RANK, {"query": "x", "documents": []}, (400, "documents", "the list is empty")),
        (RANK, {"query": "x", "documents": ["a", {"text": ""}]}, (400, "documents.1.text", "the text is empty")),
        (RANK, {"query": "x", "documents": ["a"], "top_n": 0}, (400, "top_n", "greater than or equal to 1")),
        (
            RANK,
            {"query": "x" * 60, "documents": ["a", "x" * 41]},
            (400, "documents.1", "with the query has 101 tokens"),
        ),
        (RANK, {"query": "x", "documents": ["a"], "rank_fields": ["b"]}, (400, "rank_fields", "does not support")),
        ("/v1/completions", {"model": "fake-rerank", "prompt": "x"}, (404, "model", "'fake-rerank' is for /v1/rerank")),
    ],
)
def test_what_is_wrong_is_said(
    client: TestClient, texts: FakeTexts, path: str, body: dict[str, Any], answer: tuple[int, str, str]
) -> None:
    status, param, said = answer
    response = client.post(path, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (status, param)
    assert said in error["message"]
    assert texts.seen == []


def test_a_service_without_the_models_says_so(engine: Engine) -> None:
    client = TestClient(create_app(engine, MODEL, LIMITS))
    for path, body, variable in (
        (EMBED, {"input": "x"}, "inference_embedding_model"),
        (RANK, {"query": "x", "documents": ["x"]}, "inference_rerank_model"),
    ):
        response = client.post(path, json=body)
        assert response.status_code == 404
        assert variable in response.json()["error"]["message"]
        assert path not in client.get("/openapi.json").json()["paths"]
    assert len(client.get("/v1/models").json()["data"]) == 1


def test_the_models_are_listed_after_the_chat_model(client: TestClient) -> None:
    cards = client.get("/v1/models").json()["data"]
    assert [(card["id"], card["max_model_len"]) for card in cards] == [
        (MODEL, 64),
        ("fake-embedding", 100),
        ("fake-rerank", 100),
    ]
    assert client.get("/v1/models/fake-rerank").json()["id"] == "fake-rerank"


def test_answers_are_as_documented(engine: Engine, client: TestClient, texts: FakeTexts) -> None:
    document = client.get("/openapi.json").json()
    bodies: dict[str, dict[str, Any]] = {EMBED: {"input": ["a", "b"]}, RANK: {"query": "x", "documents": ["a"]}}
    for path, body in bodies.items():
        assert check(document, client.post(path, json=body), path) == 200
        assert check(document, client.post(path, json={**body, "model": "x"}), path) == 404
        assert check(document, client.post(path, json={}), path) == 400
    assert check(document, client.post(EMBED, json={"input": "a", "encoding_format": "base64"}), EMBED) == 200
    for word, status in (("CRASH", 500), ("LOST", 503), ("FULL", 503)):
        assert check(document, client.post(EMBED, json={"input": word}), EMBED) == status
    hurried = TestClient(create_app(engine, MODEL, Limits(64, 40, request_timeout=0.1), texts=MODELS))
    assert check(document, hurried.post(EMBED, json={"input": "WAIT"}), EMBED) == 504
    texts.may_answer.set()
    engine.drain(Failed("it stops", code="shutting_down"))
    assert check(document, client.post(EMBED, json={"input": "a"}), EMBED) == 503
    for name, served in (("EmbeddingsRequest", "fake-embedding"), ("RerankRequest", "fake-rerank")):
        assert document["components"]["schemas"][name]["properties"]["model"]["enum"] == [None, served]


def test_a_key_has_its_tokens_counted(engine: Engine, texts: FakeTexts, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text("anna 0123456789abcdef\n")
    file.chmod(0o640)
    client = TestClient(create_app(engine, MODEL, LIMITS, Keys(file), texts=MODELS))
    assert client.post(EMBED, json={"input": "x"}).status_code == 401
    headers = {"Authorization": "Bearer 0123456789abcdef"}
    assert client.post(EMBED, json={"input": ["x", "yz"]}, headers=headers).status_code == 200
    metrics = client.get("/metrics").text
    assert read(metrics, "xpuserve_key_tokens_total", key="anna", kind="prompt") == 3
    assert read(metrics, "xpuserve_text_tokens_total", kind="embed") == 3
    assert read(metrics, "xpuserve_text_requests_total", kind="embed", outcome="stop") == 1


@pytest.fixture
def queue(texts: FakeTexts, backend: FakeBackend) -> Iterator[TextQueue]:
    """A queue for four requests, whose thread waits over a first one."""
    queue = TextQueue(backend, Metrics(), lambda: True, requests=4, tokens=1000)
    queue.submit(job("first", ["WAIT"]))
    assert texts.answering.wait(60)
    yield queue
    texts.may_answer.set()
    queue.abort(Failed("it ends"))


def job(client: str, wanted: list[str], **more: Any) -> TextJob:
    return TextJob(client, wanted, [len(text) for text in wanted], client=client, **more)


def test_clients_take_turns_in_portions(queue: TextQueue, texts: FakeTexts) -> None:
    many = job("flood", [f"f{n}" for n in range(3 * PORTION_TEXTS)])
    few = job("other", ["o"])
    queue.submit(many)
    queue.submit(few)
    texts.may_answer.set()
    assert many.future.result(60) == texts_of(many)
    assert few.future.result(60) == texts_of(few)
    assert [(each[0][0], len(each)) for each in texts.seen] == [("W", 1), ("f", 32), ("o", 1), ("f", 32), ("f", 32)]


def texts_of(job: TextJob) -> list[bytes]:
    return FakeTexts().embed(job.texts)


def test_a_portion_is_short_with_its_padding() -> None:
    assert job("a", ["x" * 600, "x" * 400, "x"]).portion == 1
    assert job("a", ["x" * 500, "x" * 500, "x"]).portion == 2
    assert job("a", ["x" * 5000]).portion == 1


def test_low_priority_waits(queue: TextQueue, texts: FakeTexts) -> None:
    later, sooner = job("a", ["later"], low_priority=True), job("b", ["sooner"])
    queue.submit(later)
    queue.submit(sooner)
    texts.may_answer.set()
    later.future.result(60)
    assert texts.seen[1:] == [["sooner"], ["later"]]


def test_no_more_may_wait_than_the_limits(queue: TextQueue) -> None:
    queue.submit(job("a", ["x" * 900]))
    with pytest.raises(QueueFullError):
        queue.submit(job("b", ["x" * 200]))
    queue.submit(job("b", ["x"]))
    with queue.place("c"), queue.place("d"), pytest.raises(QueueFullError), queue.place("e"):
        pass
    assert queue.waiting == 2


def test_a_full_queue_is_429(engine: Engine, client: TestClient, texts: FakeTexts) -> None:
    engine.texts.submit(job("first", ["WAIT"]))
    assert texts.answering.wait(60)
    for name in ("a", "b"):
        engine.texts.submit(job(name, ["x"]))
    response = client.post(EMBED, json={"input": "x"})
    assert (response.status_code, response.json()["error"]["code"]) == (429, "queue_full")
    assert int(response.headers["retry-after"]) >= 1


def test_what_nobody_waits_for_is_not_computed(queue: TextQueue, texts: FakeTexts) -> None:
    waiting, begun = job("a", ["waiting"]), job("b", [*["x"] * PORTION_TEXTS, "WAIT", *["z"] * PORTION_TEXTS])
    queue.submit(waiting)
    queue.cancel(waiting)
    assert queue.waiting == 0
    texts.may_answer.set()
    wait_for(lambda: len(texts.seen) == 1)
    texts.answering.clear()
    texts.may_answer.clear()
    queue.submit(begun)
    assert texts.answering.wait(60)
    queue.cancel(begun)
    texts.may_answer.set()
    last = job("c", ["last"])
    queue.submit(last)
    last.future.result(60)
    assert [len(each) for each in texts.seen] == [1, PORTION_TEXTS, PORTION_TEXTS, 1]


def test_a_service_that_stops_completes_what_has_begun(queue: TextQueue, texts: FakeTexts) -> None:
    texts.may_answer.set()
    texts.answering.clear()
    begun = job("a", [*["x"] * PORTION_TEXTS, "end"])
    queue.submit(begun)
    queue.drain(Failed("it stops", "shutting_down"))
    late = job("b", ["late"])
    queue.submit(late)
    with pytest.raises(TextsFailedError, match="it stops"):
        late.future.result(60)
    assert begun.future.exception(5) is None or not begun.started


def test_a_service_that_ends_fails_all(queue: TextQueue, texts: FakeTexts) -> None:
    waiting = job("a", ["x"])
    queue.submit(waiting)
    queue.abort(Failed("the engine ended"))
    with pytest.raises(TextsFailedError, match="the engine ended"):
        waiting.future.result(60)
    assert texts.seen == [["WAIT"]]


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, Channel]]:
    own, its = socket.socketpair()
    with own, its:
        yield own, Channel(its)


def test_texts_go_to_the_process_and_come_back(ends: tuple[socket.socket, Channel]) -> None:
    remote = RemoteTexts(5)
    with pytest.raises(EngineLostError):
        remote.embed(["x"])
    process: Any = SimpleNamespace()
    remote.begin(ends[0], process)
    thread = serve(ends[1], FakeTexts())
    assert remote.embed(["Paris", "é"]) == FakeTexts().embed(["Paris", "é"])
    assert remote.rank("ab", ["a", "ab"]) == [0.5, 1]
    with pytest.raises(OutOfMemoryError, match="it went wrong"):
        remote.embed(["FULL"])
    with pytest.raises(RemoteError, match="it went wrong"):
        remote.embed(["CRASH"])
    ends[0].shutdown(socket.SHUT_RDWR)
    thread.join(60)
    assert not thread.is_alive()


def test_a_process_that_ends_or_hangs_is_lost(ends: tuple[socket.socket, Channel]) -> None:
    got: list[int] = []
    process: Any = SimpleNamespace(send_signal=got.append)
    remote = RemoteTexts(0.05)
    remote.begin(ends[0], process)
    with pytest.raises(EngineLostError, match="hangs"):
        remote.embed(["x"])
    assert got == [signal.SIGABRT]
    ends[1].close()
    with pytest.raises(EngineLostError):
        remote.embed(["x"])


def model(path: Path, pooling: str = "mean_tokens", **config: Any) -> Path:
    """The files of a model without weights."""
    (path / "1_Pooling").mkdir(parents=True)
    for name in ("openvino_model.xml", "openvino_model.bin", "openvino_tokenizer.xml"):
        (path / name).touch()
    (path / "config.json").write_text(json.dumps({"max_position_embeddings": 512, **config}))
    (path / "1_Pooling/config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return path


def settings(**more: Any) -> Settings:
    base: dict[str, Any] = {"engine": "openvino", "device": "cpu", "cache_dir": "/x"}
    chat = {"name": "chat", "path": "/x", "format": "gguf", "context_length": 64}
    return Settings.model_validate({**base, "model": chat, **more})


@pytest.mark.parametrize(
    ("config", "most", "limit"),
    [
        ({}, None, 512),
        ({}, 256, 256),
        ({}, 10**30, 512),
        ({"model_type": "xlm-roberta", "max_position_embeddings": 8194, "pad_token_id": 1}, 8192, 8192),
        ({"model_type": "roberta", "max_position_embeddings": 514}, None, 512),
        ({"max_position_embeddings": 32768}, None, 8192),
    ],
)
def test_the_files_of_a_model_say_how_long_a_text_may_be(tmp_path: Path, config: Any, most: Any, limit: int) -> None:
    path = model(tmp_path / "m", **config)
    if most:
        (path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": most}))
    assert text_models.of(settings(rerank_model=str(path)))["rerank"].max_tokens == limit


def test_the_pooling_of_a_model_is_found_or_asked_for(tmp_path: Path) -> None:
    path = model(tmp_path / "m", "lasttoken")
    asked = settings(embedding_model=str(path))
    assert text_models.of(asked)["embedding"] == text_models.TextModel("m", path, 512, "last")
    (path / "1_Pooling/config.json").unlink()
    with pytest.raises(WeightsError, match="set embedding_pooling"):
        text_models.of(asked)
    chosen = settings(embedding_model=str(path), embedding_pooling="cls")
    assert text_models.of(chosen)["embedding"].pooling == "cls"
    (path / "openvino_tokenizer.xml").unlink()
    with pytest.raises(WeightsError, match=r"openvino_tokenizer\.xml is missing"):
        text_models.of(chosen)


def test_which_models_can_not_be_served_together() -> None:
    with pytest.raises(ValueError, match="for engine openvino, not torch"):
        settings(engine="torch", embedding_model="/a")
    for more in ({"embedding_model": "/a", "rerank_model": "/b/a"}, {"rerank_model": "/a/chat"}):
        with pytest.raises(ValueError, match="the same name"):
            settings(**more)


def test_the_service_embeds_in_its_engines_process_and_in_the_next(tmp_path: Path) -> None:
    with serving(embedding_model=str(model(tmp_path / "m"))) as (process, ask):

        def answered() -> int:
            body = json.dumps({"input": ["a", "b"]})
            response = ask.request("POST", EMBED, body, {"Content-Type": "application/json"})
            if response.status == 200:
                assert json.load(response)["usage"]["total_tokens"] == 2
            return response.status

        assert answered() == 200
        children = [file.read_text(encoding="ascii") for file in Path(f"/proc/{process.pid}/task").glob("*/children")]
        os.kill(int("".join(children)), signal.SIGKILL)
        wait_for(lambda: answered() == 503)
        wait_for(lambda: answered() == 200)
