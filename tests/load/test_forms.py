"""Answers of a given form from a real model in real engines, and what hostile schemas do to others: nothing."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve import schemas

from tests.load.client import LoadClient, Reply
from tests.load.service import Service, wait_for
from tests.load.test_load import ENDLESS

SCHEMAS, STREAMS, TOKENS = 300, 8, 120


@pytest.fixture(scope="module", params=["openvino", "bigdl"])
def client(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadClient]:
    service = Service(tmp_path_factory.mktemp(request.param), request.param, batch_requests=STREAMS)
    with service.running() as client:
        yield client


def test_every_answer_to_a_random_schema_is_valid_or_cut_off(client: LoadClient) -> None:
    dice = random.Random(3)  # noqa: S311 - no secret
    wanted = [schemas.schema(dice) for _turn in range(SCHEMAS)]
    with ThreadPoolExecutor(STREAMS) as pool:
        replies = [*pool.map(lambda schema: client.ask("An example, as JSON: ", TOKENS, json_schema=schema), wanted)]
    refused = cut_off = 0
    for schema, reply in zip(wanted, replies):
        if reply.status == 400:  # not every engine keeps to every form
            assert reply.events[0]["error"]["param"].startswith("json_schema"), reply.events
            refused += 1
            continue
        assert reply.complete(TOKENS), (schema, reply)
        (*_, reason) = [choice["finish_reason"] for event in reply.events[:-1] for choice in event["choices"]]
        assert reason == "length" or schemas.is_valid(reply.text, schema), (schema, reply.text)
        cut_off += reason == "length"
    assert refused < SCHEMAS / 4
    assert cut_off < SCHEMAS / 3
    wait_for(lambda: client.at_rest() is None)


def test_hostile_schemas_are_refused_beside_streams_that_go_on(client: LoadClient) -> None:
    dice = random.Random(4)  # noqa: S311 - no secret
    replies = [Reply() for _turn in range(STREAMS)]
    over = threading.Event()

    def read(reply: Reply) -> None:
        with closing(client.stream(reply, "A long story: ", ENDLESS, ignore_eos=True)) as events:
            for _event in events:
                if over.is_set():
                    return

    with ThreadPoolExecutor(STREAMS) as pool:
        streams = [pool.submit(read, reply) for reply in replies]
        try:
            wait_for(lambda: all(reply.events for reply in replies))
            before = [len(reply.events) for reply in replies]
            refused = [client.ask("x", 5, json_schema=schemas.hostile(dice)) for _turn in range(SCHEMAS)]
            after = [len(reply.events) for reply in replies]
        finally:
            over.set()
        for stream in streams:
            stream.result()
    assert {reply.status for reply in refused} == {400}
    assert all(reply.events[0]["error"]["param"].startswith("json_schema") for reply in refused)
    assert all(last > first for first, last in zip(before, after))
    assert not any("error" in event for reply in replies for event in reply.events)
    wait_for(lambda: client.at_rest() is None)
