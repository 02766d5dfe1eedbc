"""The audit of converged nodes: all is in order; a change by hand is found and repaired, and nothing else changes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from default.tests.snapshots import differences, snapshot

testinfra_hosts = ["ansible://arc", "ansible://native", "ansible://cpu"]

#: Files that the service writes while it answers.
SERVICE = "/var/lib/xpuserve(/.*)?"
#: Parts of these nodes that only root can check: the variables of the service's process, and its keys.
ENVIRONMENT = r"environment of xpuserve@0\.service: /proc/\d+/environ can only be read by another user"
KEYS = r"/etc/xpuserve/api_keys: /etc/xpuserve/api_keys can only be read by another user"


@pytest.fixture
def unmasked(host: Any) -> Iterator[str]:
    """The unit of the service, restored afterwards."""
    yield "xpuserve@0.service"
    host.check_output("rm -f /etc/systemd/system/xpuserve@0.service && systemctl daemon-reload")


def test_a_converged_node_is_in_order(audited: Any) -> None:
    said, layers = audited()
    assert said.status == 0, said.output
    assert {layer["status"] for layer in layers.values()} <= {"ok", "not_applicable"}
    assert layers["service"]["status"] == layers["python"]["status"] == "ok"


@pytest.mark.parametrize("by_root", [True, False], ids=["root", "person"])
def test_the_audit_touches_no_file_of_the_node(host: Any, audited: Any, by_root: bool) -> None:
    before = snapshot(host, SERVICE, touched=True)
    said, layers = audited(xpu_audit_become=by_root)
    assert {layer["status"] for layer in layers.values()} & {"ok"}, said.output
    assert differences(before, snapshot(host, SERVICE, touched=True)) == []


def test_without_root_what_only_root_sees_is_named_and_all_else_is_looked_at(
    audited: Any, stack: Any, client: Any
) -> None:
    as_root = audited()[1]
    said, layers = audited(xpu_audit_become=False)
    assert [layer["findings"] for layer in layers.values() if layer["findings"]] == [], said.output
    # A service without its own variables, or without keys, has nothing that only root could compare.
    for_root = [KEYS] * bool(client.key) + [ENVIRONMENT] * any(stack["environment"].values())
    unseen = [f"{entry['what']}: {entry['why']}" for layer in layers.values() for entry in layer["unseen"]]
    assert len(unseen) == len(for_root), said.output
    assert all(map(re.fullmatch, for_root, unseen)), said.output
    hidden = {"service"} if for_root else set()
    assert {name for name, layer in layers.items() if layer["status"] == "not_looked_at"} == hidden, said.output
    assert said.status == (2 if hidden else 0), said.output
    others = set(layers) - hidden
    assert {name: layers[name]["status"] for name in others} == {name: as_root[name]["status"] for name in others}


def test_a_node_in_order_costs_two_modules_and_no_role(host: Any, site: Any) -> None:
    cursor = host.check_output("journalctl --lines 0 --show-cursor").rpartition("-- cursor: ")[2].strip()
    run = site({}, "-vvv")
    assert (run.status, run.changed) == (0, 0), run.output
    # Each command over the connection: a module is one.
    assert run.output.count(" SSH: EXEC ") == 2, run.output
    # The log entries of Ansible's modules show what ran on the node.
    said = host.check_output("journalctl --output short --after-cursor %s", cursor)
    executed = re.findall(r" ansible-(\S+)\[\d+\]: Invoked", said)
    # Reading the journal is a module, too.
    ours = [name for name in executed if name != "ansible.legacy.command"]
    assert ours == ["xpu.fleet.gpu_info", "xpu.fleet.node_audit"], said


def test_every_role_by_itself_changes_nothing_on_a_converged_node(site: Any) -> None:
    run = site({"xpu_force": True})
    assert (run.status, run.changed) == (0, 0), run.output
    assert "TASK [xpu.fleet.inference : " in run.output


def test_a_masked_unit_is_found_under_the_service_and_put_right(
    host: Any, audited: Any, site: Any, unmasked: str
) -> None:
    host.check_output(f"systemctl mask {unmasked}")
    said, layers = audited()
    assert said.status == 1, said.output
    others = {name for name, layer in layers.items() if layer["status"] not in ("ok", "not_applicable")}
    assert others == {"service"}, said.output
    assert "xpuserve@0" in json.dumps(layers["service"]["findings"])
    mended = site()
    assert mended.status == 0, mended.output
    assert audited()[0].status == 0
    assert mended.roles == {"stack", "model", "inference"}, mended.output
