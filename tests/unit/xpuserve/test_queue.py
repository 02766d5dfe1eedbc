"""The order of the queue."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import LIMITS, MODEL, FakeBackend, wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_api import occupy
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_metrics import read
from ansible_collections.xpu.fleet.tests.unit.xpuserve.tiny import TinyBackend
from fastapi.testclient import TestClient
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.engine.loop import Engine
from xpuserve.engine.queue import FairQueue, QueueFullError
from xpuserve.engine.request import Request, SamplingParams
from xpuserve.keys import Keys

ANNA, BERT = "0123456789abcdef", "fedcba9876543210"


def request(client: str, name: str = "", tokens: int = 10, **more: Any) -> Request:
    sampling = SamplingParams(tokens - tokens // 2, ignore_eos=True)
    return Request(name or client, [1] * (tokens // 2), sampling, lambda event: None, client=client, **more)


def take(queue: FairQueue[Request]) -> Request:
    head = queue.head()
    assert head
    queue.take(head)
    return head


def order(queue: FairQueue[Request]) -> list[str]:
    """Takes all."""
    return [take(queue).id for _ in range(len(queue))]


def test_a_client_that_floods_waits_for_itself_alone() -> None:
    queue = FairQueue[Request]()
    queue.extend(request("flood", f"f{n}") for n in range(6))
    queue.extend([request("other", "o0"), request("other", "o1")])
    assert order(queue) == ["f0", "o0", "f1", "o1", "f2", "f3", "f4", "f5"]
    assert queue.head() is None


def test_turns_are_counted_in_tokens() -> None:
    queue = FairQueue[Request]()
    queue.extend(request("long", f"l{n}", 30) for n in range(3))
    queue.extend(request("short", f"s{n}") for n in range(9))
    assert Counter(each[0] for each in order(queue)[:8]) == {"s": 6, "l": 2}


def test_a_client_of_twice_the_weight_gets_twice_as_much() -> None:
    queue = FairQueue[Request]()
    queue.extend(request("heavy", weight=2.0) for _ in range(20))
    queue.extend(request("light") for _ in range(20))
    assert Counter(order(queue)[:15]) == {"heavy": 10, "light": 5}


def test_nobody_saves_up_turns_while_away() -> None:
    queue = FairQueue[Request]()
    queue.extend(request("flood", f"f{n}") for n in range(10))
    for _ in range(6):
        take(queue)
    queue.extend(request("late", f"l{n}") for n in range(4))
    assert Counter(each[0] for each in order(queue)[:6]) == {"l": 3, "f": 3}


def test_low_priority_waits_until_no_other_does() -> None:
    queue = FairQueue[Request]()
    queue.extend([request("a", "batch", low_priority=True), request("a", "first"), request("b", "second")])
    assert order(queue) == ["first", "second", "batch"]


def test_what_was_taken_too_early_is_first_again() -> None:
    queue = FairQueue[Request]()
    queue.extend(request("a", f"a{n}") for n in range(4))
    queue.put_back([take(queue), take(queue)])
    assert order(queue) == ["a0", "a1", "a2", "a3"]


def test_whatever_comes_and_goes_the_queue_has_what_is_there() -> None:
    dice = random.Random(4)  # noqa: S311
    queue, there, taken = FairQueue[Request](), list[Request](), list[Request]()
    for n in range(3000):
        if dice.random() < 0.6:
            there.append(request(dice.choice("abcde"), str(n), low_priority=dice.random() < 0.2))
            queue.extend(there[-1:])
        elif there and dice.random() < 0.3:
            queue.remove(there.pop(dice.randrange(len(there))))
        elif (head := queue.head(lambda first: first.client != "a")) is not None:
            queue.take(head)
            there.remove(head)
            taken.append(head)
        assert set(queue) == set(there)
        assert len(queue) == len(there)
    assert {each.client for each in taken} == set("bcde")


@pytest.fixture
def flooded(backend: FakeBackend) -> Iterator[Engine]:
    """An engine whose queue is full of one client's requests."""
    engine = Engine(backend, prompt_format="tokenizer", warm_up=False, queue_requests=16)
    engine.start()
    occupy(engine, backend, waiting=16)
    yield engine
    backend.may_answer.set()
    engine.stop(5)


def test_a_full_queue_has_places_for_who_has_none(flooded: Engine) -> None:
    with pytest.raises(QueueFullError):
        flooded.submit(request(""))
    flooded.submit(request("other"))
    flooded.submit(request("other"))
    with pytest.raises(QueueFullError):
        flooded.submit(request("other"))
    with flooded.places(2, "third"), pytest.raises(QueueFullError), flooded.places(1, "third"):
        pass
    for n in range(100):  # however many clients come, there is an end
        try:
            flooded.submit(request(f"one of many {n}"))
        except QueueFullError:
            break
    assert flooded.waiting == 32


def test_one_client_of_several_leaves_room_on_the_device() -> None:
    backend = TinyBackend()
    engine = Engine(backend, prompt_format="tokenizer", warm_up=False, queue_requests=64, several_clients=True)
    flood = [request("flood", tokens=3000) for _ in range(10)]
    engine.submit(*flood)
    engine.start()
    wait_for(lambda: engine.running == 3)  # of four rows
    other = request("other", tokens=12)
    engine.submit(other)
    wait_for(lambda: other.times.complete)
    assert not any(each.times.complete for each in flood)
    for each in flood:
        engine.cancel(each)
    engine.stop(5)


def test_a_client_has_no_more_tokens_on_the_device_than_it_may() -> None:
    backend = TinyBackend()
    engine = Engine(backend, prompt_format="tokenizer", warm_up=False, queue_requests=64, client_batch_tokens=6500)
    flood = [request("flood", tokens=3000) for _ in range(10)]
    engine.submit(*flood)
    engine.start()
    wait_for(lambda: engine.running == 2)  # of four rows
    other = request("other", tokens=12)
    engine.submit(other)
    wait_for(lambda: other.times.complete)
    assert sum(bool(each.times.started) for each in flood) == 2
    # One that is larger than the limit is served alone.
    large = request("large", tokens=7000)
    engine.submit(large)
    wait_for(lambda: bool(large.times.started))
    for each in (*flood, large):
        engine.cancel(each)
    engine.stop(5)


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    file = tmp_path / "keys"
    file.write_text(f"anna {ANNA}\nbert:3 {BERT}\nno-name-just-a-key\n")
    file.chmod(0o600)
    return Keys(file)


def test_a_key_has_a_name_and_a_weight(keys: Keys) -> None:
    assert keys.names == {"anna", "bert", "key-3"}
    anna, bert = keys.accept(ANNA), keys.accept(BERT)
    assert anna and bert
    assert (anna.name, anna.weight, bert.name, bert.weight) == ("anna", 1, "bert", 3)
    assert ANNA not in repr((anna, bert))
    assert not keys.accept("anna")
    assert not keys.accept(f"anna {ANNA}")


def test_requests_and_tokens_are_counted_by_the_name_of_the_key(engine: Engine, keys: Keys) -> None:
    client = TestClient(create_app(engine, MODEL, LIMITS, keys))
    asked = {"model": MODEL, "prompt": "Where?", "max_tokens": 5}
    for body in (asked, asked, {}):
        client.post("/v1/completions", json=body, headers={"Authorization": f"Bearer {ANNA}"})
    client.post("/v1/completions", json=asked, headers={"Authorization": "Bearer of nothing"})
    text = client.get("/metrics").text
    assert read(text, "xpuserve_key_requests_total", key="anna", status="200") == 2
    assert read(text, "xpuserve_key_requests_total", key="anna", status="400") == 1
    wait_for(lambda: 'kind="generation"} 10.0' in client.get("/metrics").text)
    assert read(client.get("/metrics").text, "xpuserve_key_tokens_total", key="anna", kind="prompt") == 14
    assert ANNA not in client.get("/metrics").text


def test_metrics_can_need_a_key_too(engine: Engine, keys: Keys) -> None:
    client = TestClient(create_app(engine, MODEL, LIMITS, keys, metrics_key=True))
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": f"Bearer {ANNA}"}).status_code == 200
    assert client.get("/health").status_code == 200


@pytest.mark.parametrize("allowed", [True, False])
def test_a_client_may_say_that_a_request_can_wait(
    engine: Engine, backend: FakeBackend, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    submit = engine.submit

    def submitted(*requests: Request) -> None:
        seen.extend(each.low_priority for each in requests)
        submit(*requests)

    monkeypatch.setattr(engine, "submit", submitted)
    client = TestClient(create_app(engine, MODEL, Limits(64, 40, priorities=allowed)))
    for header in ({"X-Priority": "batch"}, {}):
        client.post("/v1/completions", json={"model": MODEL, "prompt": "Where?"}, headers=header)
    assert seen == [allowed, False]


@pytest.mark.parametrize("apart", [True, False])
def test_cached_prompts_are_kept_apart_by_client_and_salt(
    engine: Engine, backend: FakeBackend, apart: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[str] = []
    submit = engine.submit

    def submitted(*requests: Request) -> None:
        seen.extend(each.salt for each in requests)
        submit(*requests)

    monkeypatch.setattr(engine, "submit", submitted)
    monkeypatch.setattr(FakeBackend, "offers", frozenset({"cache_salt"}))
    file = tmp_path / "keys"
    file.write_text(f"a {'a' * 16}\nb {'b' * 16}\na {'c' * 16}\n")
    file.chmod(0o600)
    client = TestClient(create_app(engine, MODEL, Limits(64, 40, by_client=apart), Keys(file)))
    for key, salt in (("a", None), ("b", None), ("c", None), ("a", "x"), ("b", "x")):
        body = {"model": MODEL, "prompt": "Where?", "cache_salt": salt}
        headers = {"Authorization": f"Bearer {key * 16}"}
        assert client.post("/v1/completions", json=body, headers=headers).status_code == 200
    a, b, same, salted, other = seen
    assert a == same
    assert salted not in (a, b)
    assert (a == b, salted == other) == (not apart, not apart)
