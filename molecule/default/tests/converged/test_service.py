"""The service on every node, seen from outside."""

from __future__ import annotations

import re
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

testinfra_hosts = ["ansible://arc", "ansible://native", "ansible://cpu"]

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
MODEL = "smollm2-135m-instruct"


def test_the_unit_runs_and_starts_at_boot(host: Any) -> None:
    service = host.service("xpuserve@0")
    assert service.is_running
    assert service.is_enabled
    assert host.check_output("systemctl show --property NRestarts --value xpuserve@0") == "0"


def test_the_unit_is_sandboxed(host: Any) -> None:
    report = host.check_output("systemd-analyze security --no-pager xpuserve@0")
    exposure = re.search(r"Overall exposure level for \S+: ([\d.]+)", report)
    assert exposure, report
    assert float(exposure.group(1)) <= 2.5
    pid = host.check_output("systemctl show --property MainPID --value xpuserve@0")
    assert host.file(f"/proc/{pid}").user == "xpuserve"
    assert "NoNewPrivs:\t1" in host.file(f"/proc/{pid}/status").content_string


def test_the_service_is_ready_and_names_its_model(client: Any) -> None:
    assert client.get("/health")[0] == 200
    assert client.get("/ready")[0] == 200
    status, models = client.get("/v1/models")
    assert status == 200
    assert [model["id"] for model in models["data"]] == [MODEL]


def test_an_answer_is_streamed(client: Any) -> None:
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 40, "temperature": 0}
    *events, last = client.stream("/v1/chat/completions", body)
    assert last == "[DONE]"
    pieces = [event["choices"][0]["delta"].get("content", "") for event in events if event["choices"]]
    assert "Paris" in "".join(pieces)
    assert len([piece for piece in pieces if piece]) > 3
    assert [event["choices"][0]["finish_reason"] for event in events if event["choices"]][-1] in ("stop", "length")


def test_several_are_answered_together(client: Any) -> None:
    assert client.get("/ready")[1]["batching"] == "on"
    body = {"model": MODEL, "messages": QUESTION, "max_tokens": 24, "temperature": 0}
    with ThreadPoolExecutor(4) as clients:
        answers = list(clients.map(lambda _: client.post("/v1/chat/completions", body), range(4)))
    assert [status for status, _ in answers] == [200] * 4
    assert all("Paris" in answer["choices"][0]["message"]["content"] for _, answer in answers), answers


def test_a_browser_gets_a_page_that_asks_nobody_else(client: Any) -> None:
    with urllib.request.urlopen(client.url, timeout=60) as response:
        page, policy = response.read().decode(), response.headers["content-security-policy"]
    assert "<html" in page
    assert "default-src 'none'" in policy or "default-src 'self'" in policy, policy
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", page)


def test_a_whole_answer_counts_its_tokens(client: Any) -> None:
    status, answer = client.post("/v1/chat/completions", {"model": MODEL, "messages": QUESTION, "max_tokens": 5})
    assert status == 200
    assert answer["choices"][0]["message"]["role"] == "assistant"
    assert answer["usage"]["completion_tokens"] <= 5
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] + answer["usage"]["completion_tokens"]


def test_a_plain_completion_goes_on_with_the_text(client: Any) -> None:
    body = {"model": MODEL, "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    status, answer = client.post("/v1/completions", body)
    assert status == 200
    assert "Paris" in answer["choices"][0]["text"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{not json", 400),
        ({"model": MODEL, "messages": "hello"}, 400),
        ({"model": MODEL, "messages": []}, 400),
        ({"model": "gpt-4", "messages": QUESTION}, 404),
        ({"model": MODEL, "messages": [{"role": "user", "content": "word " * 20000}]}, 400),
        ({"model": MODEL, "messages": QUESTION, "temperature": 9}, 400),
        ({"model": MODEL, "messages": QUESTION, "max_tokens": 0}, 400),
        ({"model": MODEL, "messages": QUESTION, "max_tokens": 10**9}, 400),
    ],
    ids=["json", "type", "empty", "model", "long", "temperature", "no-tokens", "many-tokens"],
)
def test_a_bad_request_is_refused_and_the_service_goes_on(client: Any, body: Any, status: int) -> None:
    got, answer = client.post("/v1/chat/completions", body)
    assert got == status, answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert client.get("/ready")[0] == 200


def test_people_chat_in_a_terminal(host: Any, client: Any) -> None:
    key = "--api-key-file /etc/xpuserve/api_keys" if client.key else ""
    answer = host.check_output(
        f'xpuserve chat {key} --url http://127.0.0.1:8000 --once "What is the capital of France?"'
    )
    assert "Paris" in answer


def test_a_second_run_in_check_mode_finds_nothing_to_do(site: Any) -> None:
    run = site(None, "--check", "--diff")
    assert run.status == 0, run.output
    assert run.changed == 0, run.output
