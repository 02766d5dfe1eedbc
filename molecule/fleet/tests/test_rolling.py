"""Changes under load: no client notices, whatever happens to a node's gate or to the controller."""

from __future__ import annotations

import time
from typing import Any

import pytest
from default.tests.conftest import wait_for
from fleet.tests.conftest import NODES, Outages, Upgrade, Upgrading, asking, on, setting, statuses, wait_until_all_serve

SETTING = "queue_requests"


def processes() -> dict[str, str]:
    """The service's process on each node."""
    return {name: on(name).check_output("systemctl show --property MainPID --value xpuserve@0") for name in NODES}


def values() -> set[Any]:
    """The values of the setting, over all nodes."""
    return {setting(SETTING, name) for name in NODES}


def test_a_change_of_the_service_on_all_nodes_is_not_noticed(upgrade: Upgrade) -> None:
    wait_until_all_serve()
    before, outages, began = processes(), Outages(), time.monotonic()
    with asking() as clients:
        run = upgrade({"inference_queue_requests": 101})
        assert run.end() == 0, run.output
        took = time.monotonic() - began
    print(f"rolling change: {took:.0f} s, nodes out for {outages.spans()} s; {clients}")
    assert (clients.failed, clients.cut) == ([], [])
    after = processes()
    assert all(before[name] != after[name] for name in NODES) and values() == {101}
    wait_until_all_serve()
    assert on("door").run("test -e /var/lib/xpu-fleet/upgrade.lock").rc == 1


def test_a_second_run_finds_nothing_to_do(upgrade: Upgrade) -> None:
    run = upgrade({"inference_queue_requests": 101})
    assert run.end() == 0 and "Set the lock" not in run.output, run.output


def test_a_reload_of_the_gateway_is_not_noticed() -> None:
    with asking() as clients:
        for _ in range(3):
            on("door").check_output("systemctl reload xpu-gateway")
            clients.wait(8)
    assert (clients.failed, clients.cut) == ([], [])


def test_a_node_that_fails_its_gate_stays_out_and_the_next_run_heals_it(upgrade: Upgrade) -> None:
    wrong = "{{ 'Berlin' if inventory_hostname == 'n2' else 'Paris' }}"
    with asking() as clients:
        run = upgrade(
            {"inference_queue_requests": 102, "xpu_audit_contains": wrong, "xpu_upgrade_max_fail_percentage": 40}
        )
        assert run.end() == 2, run.output
        assert "n2: failed, it stays drained" in run.output and "Berlin" in run.output
        assert "n3: done" in run.output and values() == {102}
        wait_for(lambda: statuses() | {"n2": ""} == {"n1": "UP", "n2": "", "n3": "UP"})
        for verb in ("reload", "reload"):
            on("door").check_output(f"systemctl {verb} xpu-gateway")
            clients.wait(8)
            assert statuses()["n2"].startswith("DRAIN")
    assert (clients.failed, clients.cut) == ([], [])
    on("door").check_output("systemctl restart xpu-gateway")
    assert statuses()["n2"].startswith("DRAIN")
    with asking() as clients:
        healed = upgrade({"inference_queue_requests": 102})
        assert healed.end() == 0, healed.output
        assert "n2: done" in healed.output
    assert (clients.failed, clients.cut) == ([], [])
    wait_until_all_serve()


def test_a_canary_that_fails_ends_the_run_and_goes_back_to_what_was_proven(upgrade: Upgrade) -> None:
    with asking() as clients:
        failed = upgrade({"inference_queue_requests": 103, "xpu_audit_contains": "Berlin"})
        assert failed.end() == 2, failed.output
        assert "Not changed: n2, n3" in failed.output and values() == {102, 103}
        back = upgrade({"xpu_upgrade_back": True})
        assert back.end() == 0, back.output
    assert (clients.failed, clients.cut) == ([], [])
    assert values() == {102}
    wait_until_all_serve()


@pytest.mark.parametrize(
    ("number", "task"),
    [
        (111, "Set the lock"),
        (112, "Wait until the gateways send it nothing"),
        (113, "xpu.fleet.inference : Set the settings"),
        (114, "Check that the node is in order"),
        (115, "Wait until the gateways send it requests"),
    ],
)
def test_a_controller_that_is_killed_is_followed_by_one_that_finishes(upgrade: Upgrade, number: int, task: str) -> None:
    with asking() as clients:
        upgrade({"inference_queue_requests": number}, "--limit=n1").kill_at(task)
        run = upgrade({"inference_queue_requests": number}, "--limit=n1")
        assert run.end() == 0, run.output
    assert (clients.failed, clients.cut) == ([], [])
    assert setting(SETTING, "n1") == number and on("n1").run("ls /etc/xpuserve/drain-0").rc != 0
    wait_until_all_serve()


def test_a_second_controller_is_refused(upgrade: Upgrade) -> None:
    lock = '{"run": "r", "owner": "alice", "host": "desk", "process": "7", "since": "s", "seen": "t", "purpose": "p"}'
    path = "/var/lib/xpu-fleet/upgrade.lock"
    on("door").check_output(f"echo '{lock}' >{path}")
    try:
        run = upgrade({"inference_queue_requests": 120})
        assert run.end() == 2 and "alice on desk (process 7) changes this fleet since s: p" in run.output, run.output
        assert 120 not in values()
    finally:
        on("door").check_output(f"rm {path}")


def test_site_refuses_to_interrupt_clients() -> None:
    run = Upgrading("site.yml", {"inference_queue_requests": 121, "xpu_hosts": "all:!gateways"})
    assert run.end() == 2 and "serves behind the gateways (door)" in run.output and 121 not in values()
