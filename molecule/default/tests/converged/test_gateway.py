"""The gateway that systemd started on one node, in front of two others."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Callable
from typing import Any

import pytest
from default.tests.conftest import wait_for

testinfra_hosts = ["ansible://cpu"]

KEY = "key-of-the-node-that-has-one"
MODEL = "smollm2-135m-instruct"
Ask = Callable[..., http.client.HTTPResponse]


@pytest.fixture
def ask(host: Any) -> Ask:
    """Ask the gateway from outside its node, by its own certificate."""
    certificate = ssl.create_default_context(cadata=host.file("/etc/xpu-gateway/tls.pem").content_string)
    address = host.ansible.get_variables()["ansible_host"]

    def send(path: str, body: dict[str, Any] | None = None, key: str = KEY) -> http.client.HTTPResponse:
        client = http.client.HTTPSConnection(address, 8443, timeout=120, context=certificate)
        headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        client.request("GET" if body is None else "POST", path, json.dumps(body) if body else None, headers)
        return client.getresponse()

    return send


def question(number: int) -> dict[str, Any]:
    """A request of that conversation."""
    asked = [{"role": "user", "content": f"{number}: what is the capital of France?"}]
    return {"model": MODEL, "messages": asked, "max_tokens": 4, "stream": True}


def served(host: Any) -> list[dict[str, Any]]:
    """The requests for answers that the gateway logged."""
    lines = host.check_output("journalctl --unit xpu-gateway --no-pager --output cat").splitlines()
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry for entry in entries if entry["method"] == "POST" and entry["status"] == 200]


def test_both_nodes_answer_at_one_address(host: Any, ask: Ask) -> None:
    wait_for(lambda: ask("/ready", key="").status == 200)
    for number in range(12):
        answer = ask("/v1/chat/completions", question(number))
        assert answer.status == 200
        assert answer.read().rstrip().endswith(b"data: [DONE]")
    wait_for(lambda: {entry["instance"] for entry in served(host)} == {"arc-0", "native-0"})
    assert {entry["key"] for entry in served(host)} == {"team"}


def test_who_has_no_key_is_refused(ask: Ask) -> None:
    for key in ("", "another-key-than-that-one"):
        answer = ask("/v1/models", key=key)
        assert (answer.status, json.loads(answer.read())["error"]["code"]) == (401, "invalid_api_key")
    assert [model["id"] for model in json.loads(ask("/v1/models").read())["data"]] == [MODEL]


def test_it_runs_without_root_and_keeps_no_key(host: Any) -> None:
    process = host.check_output("systemctl show --property MainPID --value xpu-gateway")
    assert host.check_output(f"stat --format %U /proc/{process}") == "xpu-gateway"
    assert KEY not in host.check_output("cat /etc/xpu-gateway/*; journalctl --unit xpu-gateway --no-pager")
    assert host.file("/etc/xpu-gateway/tls.pem.key").mode == 0o600
    assert host.file("/etc/xpu-gateway/door.pem").mode == 0o640
    assert not host.service("haproxy").is_enabled
