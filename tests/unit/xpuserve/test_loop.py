"""The service in front of an engine that batches."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any
from unittest.mock import MagicMock

import numpy
import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import LIMITS, MODEL, FakeBackend, wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_api import CHAT, TEXT, chat, error, sse, text
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_document import check
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_metrics import read, scrape
from ansible_collections.xpu.fleet.tests.unit.xpuserve.tiny import (
    VOCABULARY,
    RemoteTiny,
    TinyBackend,
    TinyTokenizer,
    expected,
    logits,
)
from fastapi.testclient import TestClient
from openai import OpenAI
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.api.mailbox import Mailbox
from xpuserve.engine.loop import FAILED_STEPS, Engine
from xpuserve.engine.request import Event, Failed, Finished, Piece, Request, SamplingParams
from xpuserve.engine.runner import TooLargeError

TOKENIZER = TinyTokenizer()
PROMPT = next(
    prompt
    for prompt in (chr(n) * 6 for n in range(65, 105))
    if len(expected(TOKENIZER.encode(prompt, special=False), 30)) > 20
)


def answer(prompt: str, most: int) -> str:
    return TOKENIZER.decode(expected(TOKENIZER.encode(prompt, special=False), most))


@pytest.fixture
def tiny() -> TinyBackend:
    return TinyBackend()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A web server's, in a thread."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture(params=["here", "process", "apart"])
def engine(request: pytest.FixtureRequest, tiny: TinyBackend, loop: asyncio.AbstractEventLoop) -> Iterator[Engine]:
    """Whose steps are here, or in a process, whose results its thread or a web server's loop takes."""
    ready = threading.Event()
    backend = tiny if request.param == "here" else RemoteTiny(tiny)
    engine = Engine(backend, prompt_format="tokenizer", warm_up=False, on_ready=ready.set, on_failed=ready.set)
    if request.param == "apart":
        engine.attend(Mailbox(loop).listen)
    engine.start()
    assert ready.wait(60)
    yield engine
    engine.stop(5)
    assert not engine.alive


@pytest.fixture
def client(engine: Engine) -> TestClient:
    return TestClient(create_app(engine, MODEL, LIMITS), raise_server_exceptions=False)


class Asked(Request):
    """A request that keeps its events."""

    def __init__(self, prompt: str, most: int = 20, **sampling: Any) -> None:
        self.events: queue.Queue[Event] = queue.Queue()
        ids = TOKENIZER.encode(prompt, special=False)
        super().__init__(prompt, ids, SamplingParams(most, temperature=0, **sampling), self.events.put)

    def outcome(self) -> tuple[str, Event]:
        """The whole text, and what ended it."""
        text = ""
        while isinstance(event := self.events.get(timeout=60), Piece):
            text += event.text
        return text, event


def test_requests_are_answered_together(engine: Engine, tiny: TinyBackend) -> None:
    together = [Asked(PROMPT + letter) for letter in "ABC"]
    engine.submit(*together)
    assert [each.outcome()[0] for each in together] == [answer(PROMPT + letter, 20) for letter in "ABC"]
    assert max(rows for rows, _ in tiny.model.steps) > 1


def test_more_requests_than_rows_wait_for_their_turn(engine: Engine, tiny: TinyBackend) -> None:
    many = [Asked(PROMPT + letter) for letter in "ABCDEFGHI"]
    engine.submit(*many)
    assert [each.outcome()[0] for each in many] == [answer(each.id, 20) for each in many]
    assert max(rows for rows, _ in tiny.model.steps) <= 4


def test_one_that_leaves_does_not_disturb_the_others(engine: Engine) -> None:
    stays, leaves = Asked(PROMPT, ignore_eos=True, most=200), Asked(PROMPT + "A", ignore_eos=True, most=10**4)
    reference = Asked(PROMPT, ignore_eos=True, most=200)
    engine.submit(stays, leaves)
    assert isinstance(leaves.events.get(timeout=60), Piece)
    engine.cancel(leaves)
    whole = stays.outcome()
    engine.submit(reference)
    assert whole == reference.outcome()
    wait_for(lambda: engine.running == 0)
    text = engine.counted()
    assert read(text, "vllm:request_success_total", finished_reason="abort") == 1
    assert read(text, "vllm:request_success_total", finished_reason="length") == 2


def test_one_that_leaves_before_its_turn_waits_no_more(engine: Engine) -> None:
    running = [Asked(PROMPT + letter, ignore_eos=True, most=10**4) for letter in "ABCD"]
    engine.submit(*running)
    wait_for(lambda: engine.running == 4)
    leaves = Asked(PROMPT)
    engine.submit(leaves)
    ahead = 1 if isinstance(engine._backend, RemoteTiny) else 0  # it waits in the process
    wait_for(lambda: engine.waiting == 1 and engine._runner.ahead == ahead)
    engine.cancel(leaves)
    wait_for(lambda: engine.waiting == 0)
    assert engine.running == 4
    for each in running:
        engine.cancel(each)


def test_a_prompt_that_takes_long_to_encode_holds_up_no_answer(
    engine: Engine, tiny: TinyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoding, may_end = threading.Event(), threading.Event()

    def encode(text: str, *, special: bool) -> list[int]:
        encoding.set()
        assert may_end.wait(60)
        return [1]

    monkeypatch.setattr(tiny.second, "encode", encode)
    with ThreadPoolExecutor(1) as pool:
        prompt = pool.submit(engine.encoder.encode_text, "a long one")
        try:
            assert encoding.wait(60)
            beside = Asked(PROMPT)
            engine.submit(beside)
            assert beside.outcome()[0] == answer(PROMPT, 20)
        finally:
            may_end.set()
        assert prompt.result() == [1]


def test_prompts_are_encoded_one_at_a_time(engine: Engine, tiny: TinyBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    together = threading.Barrier(2)

    def encode(text: str, *, special: bool) -> list[int]:
        with suppress(threading.BrokenBarrierError):
            together.wait(0.2)  # it breaks where no other comes
            raise AssertionError("two at a time")
        return [1]

    monkeypatch.setattr(tiny.second, "encode", encode)
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(engine.encoder.encode_text, "ab")) == [[1], [1]]


def test_without_memory_for_all_the_newest_is_told_to_come_back(client: TestClient, tiny: TinyBackend) -> None:
    tiny.model.most_cells = 20
    response = client.post(TEXT, json=text("x" * 30, temperature=0))
    assert response.status_code == 503
    assert response.headers["retry-after"]
    assert error(response)["code"] == "out_of_memory"
    assert client.post(TEXT, json=text(PROMPT, max_tokens=5)).status_code == 200


def test_what_can_never_be_served_is_refused(client: TestClient, engine: Engine, monkeypatch: Any) -> None:
    monkeypatch.setattr(engine._runner, "add", MagicMock(side_effect=TooLargeError("ask for less")))
    for _ in range(2 * FAILED_STEPS):
        response = client.post(TEXT, json=text(PROMPT))
        assert check(client.get("/openapi.json").json(), response, TEXT) == 400
        assert error(response)["code"] == "request_too_large"
        assert error(response)["message"] == "ask for less"
        assert error(response)["type"] == "invalid_request_error"
    monkeypatch.undo()
    assert client.post(TEXT, json=text(PROMPT, max_tokens=5)).status_code == 200


@pytest.mark.parametrize(("fake", "batching"), [(FakeBackend, "off"), (TinyBackend, "on")])
def test_whether_requests_are_answered_together_is_told(fake: Any, batching: str) -> None:
    backend = fake()
    may_load = threading.Event()
    load, backend.load = backend.load, lambda: may_load.wait(60) and load()
    engine = Engine(backend, prompt_format="tokenizer", warm_up=False)
    engine.start()
    client = TestClient(create_app(engine, MODEL, LIMITS))
    assert client.get("/ready").json() == {"status": "loading", "batching": None}
    may_load.set()
    wait_for(lambda: client.get("/ready").status_code == 200)
    assert client.get("/ready").json() == {"status": "ready", "batching": batching}
    engine.stop(5)


def test_what_was_read_before_is_counted(client: TestClient) -> None:
    first = client.post(TEXT, json=text(PROMPT * 4, temperature=0, max_tokens=8, ignore_eos=True)).json()
    more = first["choices"][0]["text"] + "AB"
    client.post(TEXT, json=text(PROMPT * 4 + more, temperature=0, max_tokens=1, ignore_eos=True))
    prompt = len(PROMPT) * 4
    wait_for(lambda: read(scrape(client), "vllm:prefix_cache_queries_total") == prompt + prompt + 8 + 2)
    assert read(scrape(client), "vllm:prefix_cache_hits_total") == prompt + 7
    wait_for(lambda: read(scrape(client), "vllm:num_requests_running") == 0)
    wait_for(lambda: read(scrape(client), "vllm:kv_cache_usage_perc") == 0)  # though something is kept


def logprobs(prompt: str, count: int) -> list[dict[str, Any]]:
    """For each token of the likeliest answer, the likeliest tokens with their log probabilities."""
    ids = TOKENIZER.encode(prompt, special=False)
    found = []
    for token in expected(ids, 5):
        row = logits(numpy.array([*zip(ids, range(len(ids)))])).astype(numpy.float64)
        row -= numpy.log(numpy.exp(row).sum())
        found.append({TOKENIZER.decode([int(n)]): pytest.approx(float(row[n])) for n in (-row).argsort()[:count]})
        ids.append(token)
    return found


def test_how_likely_the_tokens_of_a_chat_are(client: TestClient) -> None:
    body = chat(PROMPT, temperature=0, max_tokens=5, logprobs=True, top_logprobs=3, repetition_penalty=1.0)
    document = client.get("/openapi.json").json()
    response = client.post(CHAT, json=body)
    assert check(document, response, CHAT) == 200
    content = response.json()["choices"][0]["logprobs"]["content"]
    told = [{other["token"]: other["logprob"] for other in token["top_logprobs"]} for token in content]
    assert told == logprobs(PROMPT, 3)
    assert "".join(token["token"] for token in content) == response.json()["choices"][0]["message"]["content"]
    for token in content:
        assert token["logprob"] == token["top_logprobs"][0]["logprob"]
        assert bytes(token["bytes"]).decode() == token["token"]
    events = sse(client.post(CHAT, json={**body, "stream": True}).text)
    streamed = [choice["logprobs"]["content"] for event in events for choice in event["choices"] if choice["logprobs"]]
    assert [token for part in streamed for token in part] == content
    plain = client.post(CHAT, json=chat(PROMPT, temperature=0, max_tokens=5, logprobs=True)).json()
    assert [token["top_logprobs"] for token in plain["choices"][0]["logprobs"]["content"]] == [[]] * 5
    assert client.post(CHAT, json=chat(PROMPT)).json()["choices"][0]["logprobs"] is None


def test_how_likely_the_tokens_of_a_text_are(client: TestClient) -> None:
    response = client.post(TEXT, json=text(PROMPT, temperature=0, max_tokens=5, logprobs=2))
    assert check(client.get("/openapi.json").json(), response, TEXT) == 200
    choice = response.json()["choices"][0]
    assert choice["logprobs"]["tokens"] == list(choice["text"])
    assert choice["logprobs"]["top_logprobs"] == logprobs(PROMPT, 2)
    assert choice["logprobs"]["token_logprobs"] == [
        max(top.values(), key=lambda chance: chance.expected) for top in logprobs(PROMPT, 2)
    ]
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3, 4]
    choice = client.post(TEXT, json=text(PROMPT, temperature=0, max_tokens=5, logprobs=0)).json()["choices"][0]
    assert choice["logprobs"]["top_logprobs"] is None


def chances(ids: Sequence[int]) -> list[Any]:
    """Each token's log probability after those before it; None of the first."""
    found: list[Any] = [None]
    for n in range(1, len(ids)):
        row = logits(numpy.array([*zip(ids[:n], range(n))])).astype(numpy.float64)
        found.append(pytest.approx(float(row[ids[n]] - numpy.log(numpy.exp(row).sum()))))
    return found


LONG = PROMPT * 30  # more than a step reads


@pytest.fixture
def roomy(engine: Engine) -> TestClient:
    """With room for long prompts, and as many tokens known as there are."""
    engine.encoder.vocabulary = VOCABULARY
    return TestClient(create_app(engine, MODEL, Limits(4096, 400)), raise_server_exceptions=False)


@pytest.mark.parametrize("prompt", [PROMPT, LONG, PROMPT[0]], ids=["short", "long", "one"])
@pytest.mark.parametrize("as_ids", [False, True])
def test_how_likely_the_tokens_of_a_prompt_are(roomy: TestClient, prompt: str, as_ids: bool) -> None:
    client, ids = roomy, TOKENIZER.encode(prompt, special=False)
    client.post(TEXT, json=text(prompt, max_tokens=3))  # a cached prompt has no log probabilities
    body = text(prompt, temperature=0, max_tokens=1, logprobs=2, echo=True)
    body = {**body, "prompt": ids} if as_ids else body
    response = client.post(TEXT, json=body)
    assert check(client.get("/openapi.json").json(), response, TEXT) == 200
    choice = response.json()["choices"][0]
    (first,) = expected(ids, 1)
    whole = [*ids, first]
    told = choice["logprobs"]
    assert choice["text"] == TOKENIZER.decode(whole) == "".join(told["tokens"])
    assert told["token_logprobs"] == chances(whole)
    assert told["text_offset"] == list(range(len(whole)))
    assert told["top_logprobs"][0] is None
    for token, chance, top in [*zip(told["tokens"], told["token_logprobs"], told["top_logprobs"])][1:]:
        assert len(top) == 2
        assert chance <= max(top.values())
        assert top.get(token, chance) == chance
    assert told["token_logprobs"][-1] == max(told["top_logprobs"][-1].values())  # the likeliest, to the last digit

    chunks = [event["choices"][0] for event in sse(client.post(TEXT, json={**body, "stream": True}).text)]
    assert "".join(chunk["text"] for chunk in chunks) == choice["text"]
    parts = [chunk["logprobs"] for chunk in chunks if chunk["logprobs"]]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [each for part in parts for each in part[name]] == told[name], name
    alone = client.post(TEXT, json={**body, "logprobs": 0}).json()["choices"][0]["logprobs"]
    assert alone["top_logprobs"] is None
    assert alone["token_logprobs"] == told["token_logprobs"]


def test_several_prompts_and_answers_are_told_of_each(roomy: TestClient) -> None:
    ids = [TOKENIZER.encode(each, special=False) for each in ("ABC", "DEFG")]
    body = {"model": MODEL, "prompt": ids, "n": 2, "max_tokens": 2, "echo": True, "logprobs": 0, "seed": 1}
    choices = roomy.post(TEXT, json=body).json()["choices"]
    for choice, prompt in zip(choices, [ids[0], ids[0], ids[1], ids[1]]):
        assert choice["logprobs"]["token_logprobs"][: len(prompt)] == chances(prompt)


def test_a_prompt_whose_tokens_are_told_holds_nobody_up(roomy: TestClient, tiny: TinyBackend) -> None:
    roomy.post(TEXT, json=text(LONG, max_tokens=1, logprobs=0, echo=True))
    assert max(tokens for _rows, tokens in tiny.model.steps) == 16


@pytest.fixture
def official(url: str) -> Iterator[OpenAI]:
    """OpenAI's own client, unmodified."""
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_the_official_client_is_told_how_likely_the_tokens_of_a_chat_are(official: OpenAI) -> None:
    asked: Any = {
        **{"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "temperature": 0, "max_tokens": 5},
        **{"logprobs": True, "top_logprobs": 3},
    }
    choice = official.chat.completions.create(**asked).choices[0]
    assert choice.logprobs and choice.logprobs.content
    content = choice.logprobs.content
    assert [{other.token: other.logprob for other in token.top_logprobs} for token in content] == logprobs(PROMPT, 3)
    assert [token.token for token in content] == list(choice.message.content or "")
    assert [token.logprob for token in content] == [token.top_logprobs[0].logprob for token in content]
    assert bytes(byte for token in content for byte in token.bytes or ()).decode() == choice.message.content
    chunks = [chunk.choices[0] for chunk in official.chat.completions.create(**asked, stream=True)]
    streamed = [token for chunk in chunks if chunk.logprobs for token in chunk.logprobs.content or ()]
    assert streamed == content
    with official.chat.completions.stream(**asked) as stream:  # which the client itself puts together
        for _ in stream:
            pass
        assembled = stream.current_completion_snapshot.choices[0].logprobs
    assert assembled
    assert assembled.content == content


def test_the_official_client_is_told_how_likely_the_tokens_of_a_text_are(official: OpenAI) -> None:
    asked: Any = {"model": MODEL, "prompt": PROMPT, "temperature": 0, "max_tokens": 5, "logprobs": 2}
    choice = official.completions.create(**asked).choices[0]
    told = choice.logprobs
    assert told and told.tokens and told.token_logprobs
    assert told.tokens == list(choice.text)
    assert told.top_logprobs == logprobs(PROMPT, 2)
    assert told.token_logprobs == [max(top.values()) for top in told.top_logprobs or ()]
    assert told.text_offset == [0, 1, 2, 3, 4]
    chunks = [chunk.choices[0].logprobs for chunk in official.completions.create(**asked, stream=True)]
    parts = [part for part in chunks if part]
    assert [token for part in parts for token in part.tokens or ()] == told.tokens
    assert [chance for part in parts for chance in part.token_logprobs or ()] == told.token_logprobs
    assert [top for part in parts for top in part.top_logprobs or ()] == told.top_logprobs
    assert [offset for part in parts for offset in part.text_offset or ()] == told.text_offset


def test_tokens_of_a_stop_sequence_are_not_told(client: TestClient) -> None:
    whole = answer(PROMPT, 5)
    body = text(PROMPT, temperature=0, max_tokens=5, logprobs=0, stop=whole[2:4])
    choice = client.post(TEXT, json=body).json()["choices"][0]
    assert choice["text"] == "".join(choice["logprobs"]["tokens"]) == whole[:2]


def test_what_is_held_back_is_told_when_it_comes(client: TestClient) -> None:
    whole = answer(PROMPT, 5)
    body = text(PROMPT, temperature=0, max_tokens=5, logprobs=0, stop=whole[2:] + "~", stream=True)
    choices = [event["choices"][0] for event in sse(client.post(TEXT, json=body).text)]
    assert [(choice["text"], (choice["logprobs"] or {}).get("tokens")) for choice in choices] == [
        (whole[0], [whole[0]]),
        (whole[1], [whole[1]]),
        (whole[2:], list(whole[2:])),
        ("", None),
    ]


def test_a_bias_decides(client: TestClient) -> None:
    choice = client.post(TEXT, json=text(PROMPT, max_tokens=4, logit_bias={"7": 100, "999999999": 1})).json()
    assert choice["choices"][0]["text"] == TOKENIZER.decode([7] * 4)
    likeliest = answer(PROMPT, 1)
    ids = TOKENIZER.encode(likeliest, special=False)
    choice = client.post(TEXT, json=text(PROMPT, max_tokens=1, temperature=0, logit_bias={str(ids[0]): -100})).json()
    assert choice["choices"][0]["text"] != likeliest


@pytest.mark.parametrize(
    "field",
    [
        {"logit_bias": {"x": 1}},
        {"logit_bias": {"-1": 1}},
        {"logit_bias": {"5": 101}},
        {"logit_bias": {str(n): 1 for n in range(301)}},
        {"logprobs": 1},
        {"top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 21},
    ],
)
def test_what_a_bias_and_probabilities_must_be(client: TestClient, field: dict[str, Any]) -> None:
    response = client.post(CHAT, json=chat(PROMPT, **field))
    assert response.status_code == 400
    assert error(response)["param"].split(".")[0] in field


def test_an_engine_that_ends_answers_everyone_on_the_device(engine: Engine, tiny: TinyBackend) -> None:
    together = [Asked(PROMPT + letter, ignore_eos=True, most=10**6) for letter in "AB"]
    engine.submit(*together)
    for each in together:
        assert isinstance(each.events.get(timeout=60), Piece)
    engine.abort(Failed("it stops"))
    assert [each.outcome()[1] for each in together] == [Failed("it stops")] * 2
    wait_for(lambda: engine.running == 0)
    assert Finished not in map(type, list(together[0].events.queue))


@pytest.fixture
def failed() -> threading.Event:
    """That the engine says that it failed."""
    return threading.Event()


def test_an_engine_whose_steps_all_fail_ends(tiny: TinyBackend, failed: threading.Event) -> None:
    engine = Engine(tiny, prompt_format="tokenizer", warm_up=False, on_failed=failed.set)
    engine.start()
    before = Asked(PROMPT)
    engine.submit(before)
    assert before.outcome() == (answer(PROMPT, 20), Finished("length", 20))
    tiny.model.lost = True
    asked = [Asked(PROMPT + letter) for letter in "ABCDEFGHIJKLMNOPQRST"]
    for n, each in enumerate(asked, start=1):
        engine.submit(each)
        assert isinstance(each.outcome()[1], Failed)
        if n == FAILED_STEPS:
            break
    assert failed.wait(60)
    engine.stop(5)
    assert not engine.alive
    engine.submit(asked[-1])
    assert asked[-1].outcome()[1] == Failed("the engine ended")


def test_an_engine_whose_steps_all_fail_ends_also_when_others_wait(tiny: TinyBackend, failed: threading.Event) -> None:
    engine = Engine(tiny, prompt_format="tokenizer", warm_up=False, on_failed=failed.set)
    asked = [Asked(PROMPT + letter) for letter in "ABCDEFGHIJKLMNOPQRST"]
    engine.submit(*asked)
    tiny.model.lost = True
    engine.start()
    assert failed.wait(60)
    assert {type(each.outcome()[1]) for each in asked} == {Failed}


def test_requests_that_fail_by_themselves_do_not_end_the_engine(engine: Engine, tiny: TinyBackend) -> None:
    tiny.model.poison = TOKENIZER.encode("z", special=False)[0]
    for _ in range(3 * FAILED_STEPS):
        bad = Asked("z" * 20)
        engine.submit(bad)
        assert isinstance(bad.outcome()[1], Failed)
    good = Asked(PROMPT)
    engine.submit(good)
    assert good.outcome()[0] == answer(PROMPT, 20)


def test_requests_without_memory_do_not_end_an_engine_that_has_some_for_others(
    engine: Engine, tiny: TinyBackend
) -> None:
    tiny.model.most_cells = 20
    for _ in range(3 * FAILED_STEPS):
        large = Asked(PROMPT * 4)
        engine.submit(large)
        assert large.outcome()[1].code == "out_of_memory"  # type: ignore[union-attr]
    tiny.model.most_cells = None
    good = Asked(PROMPT)
    engine.submit(good)
    assert good.outcome()[0] == answer(PROMPT, 20)
