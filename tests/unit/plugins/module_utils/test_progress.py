"""The display of a run: the layer of a task, a line per node, hidden nodes, and the time per layer."""

from __future__ import annotations

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils import progress
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import (
    OK,
)
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.module_utils.progress import (
    CHANGED,
    DONE,
    FAILED,
    REBOOTING,
    RUNNING,
    UNREACHABLE,
    WAITING,
    Fleet,
    clock,
    frame,
    layer_of,
    times,
)


def fleet_of(number: int) -> Fleet:
    """A fleet at the beginning of a play."""
    fleet = Fleet(0.0)
    fleet.begin_play("Provision the nodes", [f"arc{index}" for index in range(number)], [], 0.0)
    return fleet


def text(fleet: Fleet, now: float, width: int = 100, height: int = 24) -> list[str]:
    """The lines of a terminal, without colours."""
    return ["".join(part for part, _style in line).rstrip() for line in frame(fleet, now, (width, height))]


def test_layers_are_those_of_the_audit() -> None:
    assert progress.LAYERS == NAMES


@pytest.mark.parametrize(
    ("roles", "tags", "action", "layer"),
    [
        ([("xpu.fleet.gpu_driver", "")], [], "command", "driver"),
        ([("xpu.fleet.kernel", ""), ("xpu.fleet.node_reboot", "reboot")], [], "reboot", "kernel"),
        ([("xpu.fleet.oneapi", ""), ("xpu.fleet.graphics_repository", "repository")], [], "command", "oneapi"),
        ([("xpu.fleet.model", "")], ["model", "service"], "command", "model"),
        ([("xpu.fleet.kernel", "rollback")], [], "command", "kernel"),
        ([], [], "xpu.fleet.service_drain", "drain"),
        ([], [], "xpu.fleet.gateway_servers", "drain"),
        ([("xpu.fleet.kernel", "expect")], ["kernel"], "set_fact", "audit"),
        ([("xpu.fleet.kernel", "preflight.yml")], ["kernel"], "command", "checks"),
        ([], ["always"], "xpu.fleet.node_audit", "audit"),
        ([], ["python"], "command", "python"),
        ([], ["model", "service"], "command", "other"),
        ([("acme.site.kernel", "")], [], "command", "kernel"),
        ([("acme.site.model", "preflight")], ["driver"], "command", "driver"),
        ([("firewall", "")], [], "command", "firewall"),
        ([], [], "command", "other"),
    ],
)
def test_a_task_belongs_to_the_layer_of_the_outermost_role(
    roles: list[tuple[str, str]], tags: list[str], action: str, layer: str
) -> None:
    assert layer_of(roles, tags, action) == layer


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-1, "0:00"), (7.9, "0:07"), (754, "12:34"), (3600, "1:00:00"), (3723, "1:02:03")]
)
def test_durations_read_as_on_a_clock(seconds: float, shown: str) -> None:
    assert clock(seconds) == shown


def test_a_layer_is_announced_once_and_a_change_with_its_time() -> None:
    fleet = fleet_of(1)
    assert fleet.start("arc0", "kernel", "Install", 1.0) == ["begins"]
    assert fleet.finish("arc0", CHANGED, 20.0) == ["changed: Install (0:19)"]
    assert fleet.start("arc0", "kernel", "Look", 20.0) == []
    assert fleet.finish("arc0", OK, 21.0) == []
    assert fleet.start("arc0", "driver", "Build", 21.0) == ["begins"]
    assert fleet.finish("arc0", FAILED, 22.0) == []


def test_a_drain_is_announced() -> None:
    assert fleet_of(1).start("arc0", "drain", "Drain it", 0.0) == ["begins"]


@pytest.mark.parametrize("layer", ["other", "audit", "checks", "firewall"])
def test_only_layers_of_a_node_are_announced(layer: str) -> None:
    assert fleet_of(1).start("arc0", layer, "Look", 0.0) == []


def test_a_reboot_that_begins_now_may_take_all_of_its_time_and_no_second_more() -> None:
    now = 726.546
    assert now + 1800 - now > 1800
    fleet = Fleet(now)
    assert "rebooting, back within 1800s" in fleet.start("arc0", "kernel", "Reboot the node", now, reboot=1800)


def test_a_reboot_counts_down_and_then_says_that_it_is_late() -> None:
    fleet = fleet_of(1)
    assert fleet.start("arc0", "kernel", "Reboot the node", 10.0, reboot=1800) == [
        "begins",
        "rebooting, back within 1800s",
    ]
    assert "rebooting, back within 1740s" in text(fleet, 70.5)[1]
    assert "rebooting, 5s over its time" in text(fleet, 1815.0)[1]
    assert fleet.counts() == {REBOOTING: 1}
    assert fleet.finish("arc0", CHANGED, 52.0) == ["back after 42s"]
    assert fleet.counts() == {WAITING: 1}


def test_a_line_shows_layer_step_and_time() -> None:
    fleet = fleet_of(3)
    fleet.start("arc0", "kernel", "Install\n  the \x1b[31mkernel", 0.0)
    fleet.attempt("arc0", 2, 30)
    fleet.start("arc1", "driver", "Build", 0.0)
    fleet.finish("arc1", FAILED, 30.0)
    fleet.start("arc2", "other", "Look", 0.0)
    fleet.finish("arc2", CHANGED, 30.0)
    assert text(fleet, 65.0) == [
        "Provision the nodes  1:05  1 failed, 1 running, 1 waiting",
        "▸ arc0  kernel         1:05  Install the [31mkernel (try 2 of 30)",
        "✗ arc1  driver               failed: Build",
        "· arc2                       changed: Look",
    ]


def test_the_tries_of_a_step_end_with_it() -> None:
    fleet = fleet_of(1)
    fleet.start("arc0", "service", "Ask", 0.0)
    fleet.attempt("arc0", 1, 0)
    assert text(fleet, 1.0)[1].endswith("Ask (tries again)")
    fleet.finish("arc0", OK, 2.0)
    fleet.start("arc0", "service", "Look", 2.0)
    assert text(fleet, 3.0)[1].endswith("Look")


@pytest.mark.parametrize(("width", "height"), [(100, 24), (40, 10), (20, 3), (10, 1), (1, 1), (80, 0)])
def test_no_terminal_is_too_small_for_a_hundred_nodes(width: int, height: int) -> None:
    fleet = fleet_of(100)
    for index in range(100):
        fleet.start(f"arc{index}", "kernel", "Install the kernel, and build the driver for it", 0.0)
    lines = text(fleet, 3.0, width, height)
    assert len(lines) == height
    assert max((len(line) for line in lines), default=0) <= width


def test_busy_and_failed_nodes_are_shown_and_the_rest_is_counted() -> None:
    fleet = fleet_of(100)
    for index in range(90, 100):
        fleet.start(f"arc{index}", "kernel", "Install", 5.0)
    fleet.start("arc50", "kernel", "Reboot", 6.0, reboot=600)
    fleet.start("arc40", "kernel", "Install", 5.0)
    fleet.finish("arc40", UNREACHABLE, 6.0)
    fleet.start("arc30", "kernel", "Look", 5.0)
    fleet.finish("arc30", OK, 7.0)
    lines = text(fleet, 8.0, height=15)
    shown = [line.split()[1] for line in lines[1:-1]]
    assert shown == ["arc30", "arc40", "arc50", *(f"arc{n}" for n in range(90, 100))]
    assert lines[-1] == "  87 more: 87 waiting"


def test_failures_leave_room_for_the_busy_and_keep_some() -> None:
    fleet = fleet_of(100)
    for index in range(50):
        fleet.start(f"arc{index}", "kernel", "Install", 1.0)
        fleet.finish(f"arc{index}", FAILED, 2.0 + index)
    for index in range(50, 100):
        fleet.start(f"arc{index}", "kernel", "Install", 60.0 + index)
    lines = text(fleet, 200.0, height=14)
    shown = [line.split()[1] for line in lines[1:-1]]
    # The latest failures, and what runs longest.
    assert shown == [*(f"arc{n}" for n in range(46, 50)), *(f"arc{n}" for n in range(50, 58))]
    assert lines[-1] == "  88 more: 46 failed, 42 running"


def test_a_play_waits_a_batch_is_done_and_what_failed_stays_failed() -> None:
    fleet = fleet_of(4)
    for index, state in enumerate((OK, FAILED, UNREACHABLE, CHANGED)):
        fleet.start(f"arc{index}", "kernel", "Install", 0.0)
        fleet.finish(f"arc{index}", state, 1.0)
    fleet.begin_play("Service", ["arc3"], [], 2.0)
    states = {name: node.seen_as for name, node in fleet.nodes.items()}
    assert states == {"arc0": DONE, "arc1": FAILED, "arc2": UNREACHABLE, "arc3": WAITING}
    assert fleet.left_of(["arc0", "arc1", "arc2"]) == ["arc0"]
    # A node whose failure was rescued works on.
    fleet.start("arc1", "service", "Run", 3.0)
    assert fleet.nodes["arc1"].seen_as == RUNNING


def worked(number: int) -> Fleet:
    """A fleet whose nodes took 60 s and more for the kernel, 5 s for the driver, and no time for access."""
    fleet = fleet_of(number)
    for index in range(number):
        for layer, seconds in (("driver", 5.0), ("kernel", 50.0), ("kernel", 10.0 + index), ("access", 0.2)):
            fleet.start(f"arc{index}", layer, "Work", 100.0)
            fleet.finish(f"arc{index}", OK, 100.0 + seconds)
    return fleet


def test_few_nodes_have_a_column_of_times_each() -> None:
    fleet = worked(2)
    fleet.start("arc1", "service", "Run", 0.0)
    fleet.finish("arc1", OK, 3.0)
    assert times(fleet, 200.0, per_host=6, width=80) == [
        "            arc0  arc1",
        "kernel      1:00  1:01",
        "driver      0:05  0:05",
        "service        -  0:03",
        "all layers  1:05  1:09",
        "whole run: 3:20",
    ]


@pytest.mark.parametrize(("per_host", "width"), [(2, 80), (6, 20)])
def test_of_many_nodes_the_longest_and_the_sum_are_told(per_host: int, width: int) -> None:
    assert times(worked(3), 200.0, per_host, width) == [
        "            longest  on     sum  nodes",
        "kernel         1:02  arc2  3:03      3",
        "driver         0:05  arc0  0:15      3",
        "all layers     1:07  arc2  3:18      3",
        "whole run: 3:20",
    ]


@pytest.mark.parametrize("width", [0, 80])
def test_a_run_that_did_nothing_has_times_too(width: int) -> None:
    assert times(Fleet(0.0), 5.0, 6, width)[-1] == "whole run: 0:05"
