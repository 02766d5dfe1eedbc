"""API keys, on the node that has some."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from default.tests.conftest import wait_for

testinfra_hosts = ["ansible://native"]

FILE, KEPT = "/etc/xpuserve/api_keys", "/etc/xpuserve/api_keys.kept"
OTHER = "another-key-than-before"
#: The command line and the variables of every running process.
PROCESSES = "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'; true"


@pytest.fixture
def changed(host: Any, client: Any) -> Iterator[None]:
    """Adds a key to the file, and restores it afterwards."""
    host.check_output(f"cp --preserve {FILE} {KEPT} && echo {OTHER} > {FILE}")
    yield
    host.check_output(f"mv {KEPT} {FILE} && systemctl reload xpuserve@0")
    wait_for(lambda: client.answers("/v1/models"))


def test_without_a_key_nobody_is_served(client: Any) -> None:
    assert client.key
    for key in ("", OTHER):
        status, answer = replace(client, key=key).get("/v1/models")
        assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    assert client.get("/v1/models")[0] == 200
    assert replace(client, key="").get("/ready")[0] == 200


def test_the_key_is_in_its_file_and_nowhere_else(host: Any, client: Any) -> None:
    file = host.file(FILE)
    assert (file.user, file.group, file.mode) == ("root", "xpuserve", 0o640)
    assert client.key in file.content_string
    for told in (PROCESSES, "journalctl --no-pager", "cat /etc/xpuserve/config.json"):
        said = host.check_output(told)
        assert said
        assert client.key not in said


def test_changed_keys_are_in_force_without_a_restart(host: Any, client: Any, changed: None) -> None:
    process = "systemctl show --property MainPID --value xpuserve@0"
    before = host.check_output(process)
    assert client.get("/v1/models")[0] == 200
    host.check_output("systemctl reload xpuserve@0")
    wait_for(lambda: replace(client, key=OTHER).answers("/v1/models"))
    assert client.get("/v1/models")[0] == 401
    assert host.check_output(process) == before
