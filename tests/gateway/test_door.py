"""What people complain about gateways, tried on HAProxy with the role's own settings."""

from __future__ import annotations

import http.client
import json
import re
import ssl
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.certificates import make

from tests.gateway.door import HAPROXY, KEY, MODEL, OTHER_KEY, Door, gateway, render
from tests.gateway.engines import Engine

QUESTION = "a question that nobody else may read"


def two() -> list[Engine]:
    """Two instances."""
    return [Engine("a"), Engine("b")]


def total(engines: list[Engine]) -> int:
    """How often they were asked together."""
    return sum(len(engine.asked) for engine in engines)


def conversation(number: int, **more: object) -> dict[str, object]:
    """The body of a request of that conversation."""
    return {"messages": [{"role": "user", "content": f"{QUESTION} {number}"}], **more}


def test_the_requests_of_a_conversation_go_to_one_instance_and_conversations_to_all(tmp_path: Path) -> None:
    engines = two()
    with gateway(tmp_path, engines) as door:
        for number in range(20):
            by = set()
            for _time in range(3):
                by.add(door.ask(conversation(number)).json()["by"])
                door.idle()
            assert len(by) == 1
    assert all(len(engine.asked) >= 9 for engine in engines) and total(engines) == 60


@pytest.mark.parametrize("field", ["prompt_cache_key", "user"])
def test_a_client_can_name_its_conversation(tmp_path: Path, field: str) -> None:
    engines = two()
    with gateway(tmp_path, engines) as door:
        for number in range(12):
            door.ask(conversation(number, **{field: "mine"})).rest()
            door.idle()
    assert sorted(len(engine.asked) for engine in engines) == [0, 12]


def test_a_conversation_that_is_asked_a_lot_does_not_stay_at_a_busy_instance(tmp_path: Path) -> None:
    engines = two()
    with gateway(tmp_path, engines) as door, ThreadPoolExecutor(8) as pool:
        for engine in engines:
            engine.may_go_on.clear()
        answers = [pool.submit(lambda: door.ask(conversation(1)).json()) for _ in range(8)]
        for engine in engines:  # none answers before both were asked
            engine.wait_for(1)
        for engine in engines:
            engine.may_go_on.set()
        assert {answer.result()["by"] for answer in answers} == {"a", "b"}


@pytest.mark.parametrize("act", ["close", "reset", "refuse", "nonsense"])
def test_an_instance_that_fails_before_its_answer_begins_costs_no_client_anything(tmp_path: Path, act: str) -> None:
    engines = two()
    with gateway(tmp_path, engines) as door:
        engines[0].act = act
        for number in range(12):
            answer = door.ask(conversation(number))
            assert (answer.status, answer.json()) == (200, {"by": "b"})
    assert engines[0].asked


def test_an_instance_that_is_gone_does_not_draw_requests_for_which_the_others_are_too_busy(tmp_path: Path) -> None:
    engines = two()
    with gateway(tmp_path, engines) as door, ThreadPoolExecutor(8) as pool:
        engines[1].may_go_on.clear()
        engines[0].leave()
        answers = pool.map(lambda number: door.ask(conversation(number)).json(), range(8))
        engines[1].wait_for(8)
        engines[1].may_go_on.set()
        assert list(answers) == [{"by": "b"}] * 8


def test_an_instance_that_fails_in_an_answer_is_not_asked_for_it_again(tmp_path: Path) -> None:
    engines = two()
    for engine in engines:
        engine.act = "break"
    with gateway(tmp_path, engines) as door:
        answer = door.ask(conversation(1, stream=True))
        assert answer.line() in ("data: a", "data: b")
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            answer.rest()
        line = json.loads(door.says(lambda line: '"method":"POST"' in line))
    # In the data; HAProxy 3.0.11 says of the client that it left, as it does at the same moment.
    assert total(engines) == 1 and line["end"] in ("SD", "CD")


def test_what_is_not_ready_is_not_asked_and_comes_back(tmp_path: Path) -> None:
    engines = two()
    with gateway(tmp_path, engines) as door:
        engines[0].ready = False
        door.until(lambda states: states["node-0"][0].startswith("DOWN"))
        assert {door.ask(conversation(number)).json()["by"] for number in range(12)} == {"b"}
        assert door.ask(path="/ready").status == 200
        engines[1].ready = False
        door.until(lambda states: states["node-1"][0].startswith("DOWN"))
        answer = door.ask(conversation(1))
        assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
        assert answer.json()["error"]["code"] == "not_ready"
        assert (door.ask(path="/ready").status, door.ask(path="/health").status) == (503, 200)
        for engine in engines:
            engine.ready = True
        door.until(lambda states: all(status == "UP" for status, _ in states.values()))
        assert {door.ask(conversation(number)).json()["by"] for number in range(12)} == {"a", "b"}


def test_an_instance_that_hangs_does_not_hang_the_door(tmp_path: Path) -> None:
    engines = two()
    with gateway(tmp_path, engines) as door:
        engines[0].act = "hang"
        engines[0].may_go_on.clear()
        door.until(lambda states: states["node-0"][0].startswith("DOWN"))
        assert {door.ask(conversation(number)).json()["by"] for number in range(12)} == {"b"}


def test_an_instance_that_drains_ends_its_answers_and_gets_no_more(tmp_path: Path) -> None:
    engines = two()
    with gateway(tmp_path, engines) as door:
        engines[0].may_go_on.clear()
        answers = [door.ask(conversation(number, stream=True)) for number in range(12)]
        engines[0].wait_for(1)
        engines[0].agent = "drain"
        door.until(lambda states: states["node-0"][0].startswith("DRAIN"))
        before = len(engines[0].asked)
        assert {door.ask(conversation(number)).json()["by"] for number in range(12)} == {"b"}
        engines[0].may_go_on.set()
        assert all(answer.rest().endswith("[DONE]\n\n") for answer in answers)
        assert len(engines[0].asked) == before
        engines[0].agent = "ready up 50%"
        door.until(lambda states: states["node-0"] == ("UP", 50) and states["node-1"] == ("UP", 100))


def test_a_reload_keeps_streams_counters_and_what_is_known_of_instances(tmp_path: Path) -> None:
    engines = two()
    with gateway(tmp_path, engines, gateway_key_requests_per_minute=5) as door:
        engines[0].agent = "drain"
        door.until(lambda states: states["node-0"][0].startswith("DRAIN"))
        engines[1].may_go_on.clear()
        answer = door.ask(conversation(1, stream=True))
        assert answer.line() == "data: b"
        for _ in range(3):
            door.ask(path="/v1/models").rest()
        door.reload()
        # The former process passes on what it counted.
        door.until(lambda _: "key=first" in door.admin("show table keys"))
        assert door.states()["node-0"][0].startswith("DRAIN")  # from its first moment, before the agent was asked again
        assert door.ask(path="/v1/models").status == 200
        refused = door.ask(path="/v1/models")
        assert (refused.status, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        engines[1].may_go_on.set()
        assert answer.rest().endswith("[DONE]\n\n")


def test_an_instance_gets_as_much_as_it_takes_and_the_rest_waits_its_turn(tmp_path: Path) -> None:
    engine = Engine("a")
    limits: dict[str, Any] = {"gateway_instance_requests": 2, "gateway_queue_requests": 3, "gateway_queue_timeout": 60}
    with gateway(tmp_path, [engine], **limits) as door, ThreadPoolExecutor(8) as pool:
        engine.may_go_on.clear()
        waiting = [pool.submit(lambda: door.ask(conversation(1)).status) for _ in range(2)]
        engine.wait_for(2)
        queued = [pool.submit(lambda: door.ask(conversation(1)).status) for _ in range(3)]
        door.until(lambda _: _queue(door) == 3)
        refused = door.ask(conversation(1))
        assert (refused.status, refused.headers["Retry-After"]) == (429, "2")
        assert refused.json()["error"]["code"] == "queue_full"
        engine.may_go_on.set()
        assert [answer.result() for answer in waiting + queued] == [200] * 5
    assert engine.most_running == 2


def _queue(door: Door) -> int:
    rows = [line.split(",") for line in door.admin("show stat").splitlines() if ",BACKEND," in line]
    servers = [line.split(",") for line in door.admin("show stat").splitlines() if ",node-" in line]
    return sum(int(row[2] or 0) for row in rows if row[0].startswith("model-")) + sum(int(row[2]) for row in servers)


def test_who_waits_too_long_is_told_to_come_back(tmp_path: Path) -> None:
    engine = Engine("a")
    with (
        gateway(tmp_path, [engine], gateway_instance_requests=1, gateway_queue_timeout=1) as door,
        ThreadPoolExecutor(1) as pool,
    ):
        engine.may_go_on.clear()
        first = pool.submit(lambda: door.ask(conversation(1)).status)
        engine.wait_for(1)
        refused = door.ask(conversation(2))
        assert (refused.status, refused.json()["error"]["code"]) == (503, "not_ready")
        engine.may_go_on.set()
        assert first.result() == 200


def test_a_key_has_its_requests_at_a_time_and_no_other_suffers(tmp_path: Path) -> None:
    engine = Engine("a")
    with gateway(tmp_path, [engine], gateway_key_requests=2) as door:
        engine.may_go_on.clear()
        streams = [door.ask(conversation(number, stream=True)) for number in range(2)]
        refused = door.ask(conversation(3))
        assert (refused.status, refused.headers["Retry-After"]) == (429, "2")
        other = door.ask(conversation(4, stream=True), key=OTHER_KEY)
        engine.may_go_on.set()
        assert all(stream.rest().endswith("[DONE]\n\n") for stream in (*streams, other))


@pytest.mark.parametrize("key", ["", "key-of-nobody-that-is-known", KEY.upper()])
def test_who_has_no_key_is_refused_before_anything_is_read(tmp_path: Path, key: str) -> None:
    engine = Engine("a")
    with gateway(tmp_path, [engine]) as door:
        for path in ("/v1/models", "/v1/chat/completions"):
            answer = door.ask(conversation(1) if "chat" in path else None, key=key, path=path)
            assert (answer.status, answer.json()["error"]["code"]) == (401, "invalid_api_key")
    assert not engine.asked


def test_the_log_says_who_and_which_instance_and_nothing_of_what_was_said(tmp_path: Path) -> None:
    engine = Engine("a")
    with gateway(tmp_path, [engine]) as door:
        door.ask(conversation(1)).rest()
        line = json.loads(door.says(lambda line: '"method":"POST"' in line))
    assert {name: line[name] for name in ("status", "model", "key", "instance")} == {
        "status": 200,
        "model": MODEL,
        "key": "first",
        "instance": "node-0",
    }
    assert line["request_id"] == engine.asked[0]["headers"]["x-request-id"]
    assert not any(KEY in each or QUESTION in each for each in door.log)
    assert KEY not in (tmp_path / "keys.map").read_text()


@pytest.mark.parametrize("model", ["large", 'sm"all', "small\n", "é" * 40])
def test_a_model_that_is_not_there_is_named(tmp_path: Path, model: str) -> None:
    engine = Engine("a")
    with gateway(tmp_path, [engine]) as door:
        answer = door.ask(conversation(1, model=model))
        assert answer.status == 404
        error = answer.json()["error"]
        assert (error["code"], error["param"]) == ("model_not_found", "model") and "GET /v1/models" in error["message"]
        json.loads(door.says(lambda line: '"status":404' in line))
    assert not engine.asked


def test_texts_go_to_the_instances_that_have_a_model_for_them(tmp_path: Path) -> None:
    engines = [Engine(name) for name in "abc"]
    has = {"b": {"embedding": "bge", "rerank": "bge"}, "c": {"rerank": "second"}}
    with gateway(tmp_path, engines, text_models=has) as door:

        def served(path: str, **body: str) -> Any:
            answer = door.ask({"input": QUESTION, **body}, path=path)
            return answer.json()["by"] if answer.status == 200 else answer.json()["error"]["code"]

        assert served("/v1/embeddings", model="bge") == served("/v1/embeddings", model="") == "b"
        assert served("/v1/rerank", model="bge") == "b" and served("/v1/rerank", model="second") == "c"
        # A chat model has no vectors, and of two models none is meant by itself.
        for path, model in (("/v1/embeddings", MODEL), ("/v1/rerank", ""), ("/v1/chat/completions", "bge")):
            assert served(path, model=model) == "model_not_found"
        assert served("/v1/chat/completions", model="") in set("abc")
        listed = [model["id"] for model in door.ask(path="/v1/models").json()["data"]]
        assert listed == [MODEL, "bge", "second"]
        by = [door.ask(path=f"/v1/models/{name}").json()["by"] for name in ("bge", "second")]
        assert by == ["b", "c"]
    assert {request["path"] for request in engines[2].asked} <= {"/v1/rerank", "/v1/chat/completions"}


def test_texts_of_one_client_go_to_all_instances(tmp_path: Path) -> None:
    engines = two()
    with gateway(tmp_path, engines, text_models={name: {"embedding": "bge"} for name in "ab"}) as door:
        for _time in range(12):
            assert door.ask({"model": "bge", "input": QUESTION, "user": "one"}, path="/v1/embeddings").status == 200
            door.idle()
    assert sorted(len(engine.asked) for engine in engines) == [6, 6]


def test_a_drained_instance_gets_no_texts(tmp_path: Path) -> None:
    engines = two()
    with gateway(tmp_path, engines, text_models={name: {"embedding": "bge"} for name in "ab"}) as door:
        engines[0].agent = "drain"
        door.until(lambda _states: door.admin("show stat").count("DRAIN") == 2)
        for _time in range(6):
            assert door.ask({"model": "bge", "input": QUESTION}, path="/v1/embeddings").json() == {"by": "b"}
    assert not engines[0].asked


def test_a_body_that_is_too_long_for_another_try_is_refused(tmp_path: Path) -> None:
    engine = Engine("a")
    with gateway(tmp_path, [engine], gateway_body_bytes=16384) as door:
        assert door.ask(conversation(1, padding="x" * 15000)).status == 200
        answer = door.ask(conversation(1, padding="x" * 16384))
        assert (answer.status, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert len(engine.asked) == 1


def test_what_is_served_and_counted_can_be_read(tmp_path: Path) -> None:
    with gateway(tmp_path, two()) as door:
        assert [model["id"] for model in door.ask(path="/v1/models").json()["data"]] == [MODEL]
        client = http.client.HTTPConnection("127.0.0.1", door.metrics_port, timeout=30)
        client.request("GET", "/metrics")
        assert 'haproxy_server_status{proxy="model-' in client.getresponse().read().decode()
        assert door.ask(path="/metrics").status == 404


def test_instances_are_asked_over_tls_if_their_certificate_is_known(tmp_path: Path) -> None:
    own, other = tmp_path / "own", tmp_path / "other"
    for folder in (own, other):
        folder.mkdir()
    files = make(own)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*files)
    with gateway(tmp_path, [Engine("a")], tls=tls, __gateway_authorities_file=str(files.certificate)) as door:
        assert door.ask(conversation(1)).json() == {"by": "a"}
        make(other).certificate.replace(files.certificate)
        door.reload()
        door.until(lambda states: all(up.startswith("DOWN") for up, _ in states.values()))
        assert door.ask(conversation(1)).status == 503


SETTINGS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "tls": {"gateway_tls": True},
    "all addresses, some clients": {
        "gateway_host": "::",
        "__gateway_local": False,
        "gateway_clients": ["192.0.2.0/24"],
    },
    "limits": {"gateway_api_keys": [KEY], "gateway_key_requests": 2, "gateway_key_requests_per_minute": 60},
    "instances with tls and without agent": {"gateway_instance_authorities": "given"},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_haproxy_takes_the_settings_without_a_warning(tmp_path: Path, name: str) -> None:
    certificate, both = make(tmp_path), tmp_path / "door.pem"
    both.write_text("".join(file.read_text() for file in certificate))
    apart = "authorities" in str(SETTINGS[name])
    instances = {
        node: [
            {
                "name": f"{node}-0",
                "address": "192.0.2.1",
                "port": 8000,
                "agent_port": 0 if apart else 9000,
                "tls": apart,
            }
            | {"model": model, "requests": 4, "text_models": {"embedding": "bge", "rerank": f"reranks-{node}"}}
        ]
        for node, model in (("a", "small"), ("b", "large"))
    }
    files = {"__gateway_certificate_and_key": str(both), "__gateway_authorities_file": str(certificate.certificate)}
    given = {"instances": instances, "gateway_tls": False, "gateway_api_keys": [], **files, **SETTINGS[name]}
    render(tmp_path, given)
    # Without the servers' state of an earlier process.
    settings = tmp_path / "haproxy.cfg"
    settings.write_text(re.sub(".*server-state.*", "", settings.read_text()))
    found = subprocess.run([HAPROXY, "-c", "-f", settings], capture_output=True, text=True, check=False)
    assert found.returncode == 0 and not re.search("WARNING|ALERT", found.stderr + found.stdout), found
