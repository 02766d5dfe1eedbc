"""A rolling change: batches, the valid lock, when it stops, and its result."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.upgrade import lock_verdict, plan, stop_reason, summary

LOCK = {
    "run": "r1", "owner": "alice", "host": "desk", "process": "7", "since": "2026-01-02T03:04:05Z",
    "seen": "2026-01-02T03:05:06Z", "purpose": "new driver",
}  # fmt: skip
MINE = {**LOCK, "run": "r2"}


def nodes(count: int, model: str = "", **more: Any) -> dict[str, dict[str, Any]]:
    """Variables of so many nodes."""
    served = {"inference_endpoints": {"model": model}} if model else {}
    return {f"n{number:02}": {**served, **more} for number in range(count)}


def batches(
    variables: Mapping[str, Mapping[str, Any]],
    sizes: list[Any],
    limits: Mapping[str, Any] | None = None,
    groups: Mapping[str, list[str]] | None = None,
) -> list[list[str]]:
    """The batches of a plan; their order and sizes have to cover all nodes."""
    found = plan(list(variables), variables, sizes, limits or {}, groups or {})
    assert sorted(found["order"]) == sorted(variables) and not found["problems"]
    rest = iter(found["order"])
    return [[next(rest) for _ in range(size)] for size in found["serial"]]


def test_a_canary_goes_first_and_batches_grow() -> None:
    assert list(map(len, batches(nodes(20), [1, "10%", "25%"]))) == [1, 2, 5, 5, 5, 2]
    assert list(map(len, batches(nodes(3), [1, "10%", "25%"]))) == [1, 1, 1]


def test_what_is_out_already_goes_before_the_canary_and_all_at_once() -> None:
    variables = nodes(5)
    for name in ("n03", "n04"):
        variables[name]["upgrade_drained"] = True
    found = plan(list(variables), variables, [1, 2], {}, {})
    assert found["lines"] == ["first, already drained: n03, n04", "canary: n00", "batch 2: n01, n02"]


@pytest.mark.parametrize(("most", "expected"), [(1, 1), ("50%", 2), ("1%", 1)])
def test_no_batch_takes_more_of_a_rack_than_it_may_lose(most: Any, expected: int) -> None:
    racks = {"left": ["n00", "n01", "n02", "n03"], "right": ["n04", "n05", "n06", "n07"]}
    found = batches(nodes(8), ["100%"], {"left": most}, racks)
    assert max(len({*batch} & {*racks["left"]}) for batch in found) == expected
    assert len(found[0]) == 4 + expected


def test_half_of_a_models_nodes_serve_whatever_the_sizes_say() -> None:
    variables = {**nodes(4, "big"), "x0": {"inference_endpoints": {"model": "small"}}}
    assert batches(variables, ["100%"]) == [["n00", "n01", "x0"], ["n02", "n03"]]
    for name in ("n00", "n01"):
        variables[name] = {"inference_endpoints": {"model": "big", "embedding_model": "/srv/bge"}}
    assert batches(variables, ["100%"]) == [["n00", "n02", "x0"], ["n01", "n03"]]
    twice = {f"n{number}": {"inference_endpoints": {"model": "m", "rerank_model": "/srv/m"}} for number in range(2)}
    assert batches(twice, ["100%"]) == [["n0"], ["n1"]]


def test_nodes_that_need_no_change_count_among_those_of_a_model() -> None:
    variables = nodes(8, "big")
    found = plan(["n00", "n01", "n02"], variables, ["100%"], {}, {})
    assert found["serial"] == [3]


def test_a_limit_on_no_group_is_named() -> None:
    assert plan(["n00"], nodes(1), [1], {"rack9": 1}, {"all": ["n00"]})["problems"] == [
        "xpu_upgrade_limits names rack9, which is not a group."
    ]


def verdict(lock: dict[str, str], *, ended: bool = False, take_over: bool = False) -> dict[str, Any]:
    """What is made of one lock."""
    return lock_verdict({"door": lock}, MINE, lambda _lock: ended, take_over)


def test_a_lock_that_nobody_has_or_this_run_has_is_free() -> None:
    for lock in ({}, MINE):
        assert verdict(lock) == {"replaces": {"door": ""}, "problems": [], "notes": []}


def test_a_second_controller_is_refused_and_told_by_whom() -> None:
    found = verdict(LOCK)
    assert found["replaces"] == {"door": ""}
    (problem,) = found["problems"]
    for word in ("alice on desk (process 7)", "new driver", LOCK["since"], LOCK["seen"], "xpu_upgrade_take_over=true"):
        assert word in problem


@pytest.mark.parametrize(
    ("how", "why"), [({"ended": True}, "has ended"), ({"take_over": True}, "xpu_upgrade_take_over is set")]
)
def test_the_lock_of_a_run_that_was_cut_off_is_taken_over_and_told(how: dict[str, bool], why: str) -> None:
    found = verdict(LOCK, **how)
    assert (found["replaces"], found["problems"]) == ({"door": "r1"}, [])
    assert why in found["notes"][0] and "alice" in found["notes"][0] and "is taken over" in found["notes"][0]


def test_a_run_that_takes_no_lock_removes_that_of_a_run_that_was_cut_off() -> None:
    found = lock_verdict({"door": LOCK}, {}, lambda _lock: True, False)
    assert found["replaces"] == {"door": "r1"} and "is removed: alice" in found["notes"][0]


def test_what_a_lock_says_cannot_break_a_terminal() -> None:
    assert "\x1b" not in verdict({**LOCK, "purpose": "a\x1b[2J\nb"})["problems"][0]


@pytest.mark.parametrize(("most", "stops"), [(0, True), (24, True), (25, False), (100, False)])
def test_a_share_of_failed_nodes_is_borne(most: float, stops: bool) -> None:
    variables = nodes(4)
    variables["n00"]["upgrade_done"] = True
    reason = stop_reason(["n00", "n01"], list(variables), variables, most)
    assert bool(reason) == stops
    if stops:
        assert reason.startswith("n01 failed") and reason.endswith("Not changed: n02, n03.")


def test_a_node_that_failed_before_does_not_block_the_others() -> None:
    variables = nodes(3)
    variables["n00"] |= {"upgrade_failed": "no answer", "upgrade_failed_before": True}
    assert stop_reason(["n00"], list(variables), variables, 0) == ""


def test_each_node_is_summed_up_with_its_reason() -> None:
    variables = nodes(4)
    variables["n00"]["upgrade_done"] = True
    variables["n01"] |= {"upgrade_failed": "Prove: no\nanswer", "upgrade_out": True}
    variables["n02"] |= {"upgrade_failed": "it does not get empty"}
    found = summary(list(variables), ["n00", "n01", "n02"], variables)
    assert found["lines"] == [
        "n00: done",
        "n01: failed, it stays drained: Prove: no answer",
        "n02: failed, it serves as before: it does not get empty",
        "n03: left as it is",
    ]
    assert (found["done"], list(found["failed"])) == (["n00"], ["n01", "n02"])
