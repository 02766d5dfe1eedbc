"""A service that ends or hangs recovers without help."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from default.tests.conftest import wait_for

testinfra_hosts = ["ansible://cpu"]

PROCESS = "systemctl show --property MainPID --value xpuserve@0"
RESTARTS = "systemctl show --property NRestarts --value xpuserve@0"


@pytest.fixture
def counted(host: Any) -> Iterator[None]:
    """systemd has counted no restart, before and after."""
    host.check_output("systemctl reset-failed xpuserve@0")
    yield
    host.check_output("systemctl reset-failed xpuserve@0")


def comes_back(host: Any, client: Any, before: str) -> bool:
    """Whether a new process, systemd's first attempt, answers a question."""
    wait_for(lambda: host.check_output(RESTARTS) != "0")
    wait_for(lambda: client.answers("/ready"))
    body = {"model": "smollm2-135m-instruct", "prompt": "The capital of France is", "max_tokens": 8, "temperature": 0}
    status, answer = client.post("/v1/completions", body)
    assert (status, host.check_output(RESTARTS)) == (200, "1")
    return host.check_output(PROCESS) != before and "Paris" in answer["choices"][0]["text"]


def test_a_killed_service_is_ready_again(host: Any, client: Any, counted: None) -> None:
    before = host.check_output(PROCESS)
    host.check_output(f"kill -KILL {before}")
    assert comes_back(host, client, before)


# It takes WatchdogSec, in which this machine does nothing.
def test_a_wedged_service_is_ready_again(host: Any, client: Any, counted: None) -> None:
    cursor = host.check_output("journalctl --lines 0 --show-cursor").rpartition("-- cursor: ")[2].strip()
    before = host.check_output(PROCESS)
    host.check_output(f"kill -STOP {before}")
    assert comes_back(host, client, before)
    # Read the whole journal: with a filter, journalctl omits the first entry after one that does not match.
    said = host.check_output("journalctl --after-cursor %s", cursor)
    assert "xpuserve@0.service: Watchdog timeout" in said
