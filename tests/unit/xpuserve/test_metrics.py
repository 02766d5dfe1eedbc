"""Metrics as Prometheus reads them."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, FakeBackend, wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.test_api import occupy
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from xpuserve.engine.loop import Engine
from xpuserve.engine.request import Failed, Request, SamplingParams, Times
from xpuserve.metrics import CONTENT_TYPE, Metrics

CHAT = "/v1/chat/completions"


def chat(prompt: str = "Where?", **more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **more}


def read(text: str, name: str, **labels: str) -> float:
    """The value of one sample, which there must be once."""
    found = [
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, (name, labels, found)
    return float(found[0])


def scrape(client: TestClient) -> str:
    response = client.get("/metrics")
    assert response.headers["content-type"] == CONTENT_TYPE
    return response.text


def test_an_answer_is_counted(client: TestClient) -> None:
    client.post(CHAT, json=chat(max_tokens=5))
    client.post(CHAT, json=chat(stop="Pa"))
    wait_for(lambda: read(scrape(client), "vllm:request_success_total", finished_reason="stop") == 1)
    text = scrape(client)
    values = {
        "vllm:request_success_total/length": 1,
        "vllm:request_success_total/abort": 0,
        "vllm:prompt_tokens_total": 12,
        "vllm:generation_tokens_total": 7,
        "vllm:time_to_first_token_seconds_count": 2,
        "vllm:inter_token_latency_seconds_count": 5,
        "vllm:request_time_per_output_token_seconds_count": 2,
        "vllm:e2e_request_latency_seconds_count": 2,
        "vllm:request_queue_time_seconds_count": 2,
        "vllm:request_prefill_time_seconds_count": 2,
        "vllm:request_decode_time_seconds_count": 2,
        "vllm:request_inference_time_seconds_count": 2,
        "vllm:request_prompt_tokens_sum": 12,
        "vllm:request_generation_tokens_sum": 7,
        "vllm:request_max_num_generation_tokens_sum": 7,
        "vllm:request_max_num_generation_tokens_count": 2,
        "vllm:request_params_max_tokens_sum": 45,
        "vllm:num_requests_running": 0,
        "vllm:num_requests_waiting": 0,
    }
    for key, value in values.items():
        name, _, reason = key.partition("/")
        assert read(text, name, **({"finished_reason": reason} if reason else {})) == value, key
    assert read(text, "http_requests_total", handler=CHAT, method="POST", status="200") == 2
    assert read(text, "process_resident_memory_bytes") > 10**7
    assert read(text, "xpuserve_resident_memory_bytes", process="engine") == 0  # it is in this process


def test_of_several_answers_to_a_prompt_the_longest_is_counted_when_all_are_complete() -> None:
    metrics = Metrics("m", 100)
    prompts = [[1], [1]]
    together = [
        Request(f"r{n}", prompts[n // 3], SamplingParams(50), lambda event: None, times=Times(tokens=tokens))
        for n, tokens in enumerate((10, 40, 20, 5))
    ]
    for each in together:
        each.together = together
    name = "vllm:request_max_num_generation_tokens"
    seen = []
    for each in together:
        metrics.over(each, "stop")
        text = metrics.text(0, 0)
        seen.append((read(text, f"{name}_count"), read(text, f"{name}_sum")))
    assert seen == [(0, 0), (0, 0), (1, 40), (2, 45)]
    assert read(text, f"{name}_bucket", le="20.0") == 1


def test_what_runs_and_waits(client: TestClient, engine: Engine, backend: FakeBackend) -> None:
    occupy(engine, backend, waiting=2)
    text = scrape(client)
    assert read(text, "vllm:num_requests_running") == 1
    assert read(text, "vllm:num_requests_waiting") == 2
    assert client.post(CHAT, json=chat()).status_code == 429
    assert read(scrape(client), "http_requests_total", handler=CHAT, status="429") == 1
    engine.abort(Failed("over"))
    backend.may_answer.set()
    wait_for(lambda: read(scrape(client), "vllm:request_success_total", finished_reason="abort") == 3)
    text = scrape(client)
    assert read(text, "vllm:num_requests_running") == read(text, "vllm:num_requests_waiting") == 0
    # How long it took until someone gave up says nothing.
    assert read(text, "vllm:e2e_request_latency_seconds_count") == 0


def test_a_request_that_leaves_the_queue_is_counted_once(engine: Engine, backend: FakeBackend) -> None:
    occupy(engine, backend)
    request = Request("r", [1], SamplingParams(1), lambda event: None)
    engine.submit(request)
    engine.cancel(request)
    engine.cancel(request)
    assert read(engine.metrics.text(0, 0), "vllm:request_success_total", finished_reason="abort") == 1


def test_a_failure_is_counted(client: TestClient) -> None:
    client.post(CHAT, json=chat("CRASH"))
    wait_for(lambda: read(scrape(client), "vllm:request_success_total", finished_reason="error") == 1)


def test_what_clients_write_makes_no_new_series(client: TestClient) -> None:
    for path in ("/a", "/b", "/v1/models/x", "/v1/models/y"):
        client.request("BREW", path)
        client.get(path)
    text = scrape(client)
    handlers = {
        (sample.labels["handler"], sample.labels["method"])
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "http_requests_total"
    }
    assert handlers == {(name, method) for name in ("none", "/v1/models/{name:path}") for method in ("GET", "other")}


def test_times_are_where_they_belong() -> None:
    metrics = Metrics('a "quoted" \\ model\n', 100)
    times = Times(submitted=0.0, started=3.0, first=4.0, last=8.0, tokens=5)
    request = Request("r", [1] * 20, SamplingParams(50), lambda event: None, times=times)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.monotonic", lambda: 9.0)
        metrics.over(request, "stop")
    text = metrics.text(0, 0)
    sums = {
        "e2e_request_latency_seconds": 9,
        "request_queue_time_seconds": 3,
        "request_inference_time_seconds": 6,
        "request_prefill_time_seconds": 1,
        "request_decode_time_seconds": 4,
        "request_time_per_output_token_seconds": 1,
    }
    assert {name: read(text, f"vllm:{name}_sum") for name in sums} == sums
    assert read(text, "vllm:request_queue_time_seconds_bucket", le="2.5") == 0
    assert read(text, "vllm:request_queue_time_seconds_bucket", le="5.0") == 1
    assert read(text, "vllm:request_queue_time_seconds_bucket", le="+Inf") == 1
    bounds = [
        float(sample.labels["le"])
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "vllm:request_prompt_tokens_bucket"
    ]
    assert bounds == [1, 2, 5, 10, 20, 50, 100, math.inf]
    assert read(text, "vllm:request_prompt_tokens_bucket", le="20.0") == 1  # a bound is within its bucket
    assert read(text, "vllm:request_prompt_tokens_count", model_name='a "quoted" \\ model\n', engine="0") == 1
