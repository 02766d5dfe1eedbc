"""Which roles a run needs follows from what the audit found, and from the layers that the operator chose."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.audit.due import chosen_layers, due_layers, reasons
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    LAYERS,
    NAMES,
)


def found(**states: str) -> dict[str, Any]:
    """A node in order but for some layers."""
    return {name: {"status": states.get(name, "ok"), "findings": [], "unseen": [], "reason": ""} for name in NAMES}


def test_a_node_in_order_needs_no_role() -> None:
    assert due_layers(found(oneapi="not_applicable"), NAMES) == []


@pytest.mark.parametrize("status", ["drift", "missing", "not_looked_at"])
def test_a_layer_that_is_not_in_order_needs_its_role(status: str) -> None:
    assert due_layers(found(access=status), NAMES) == ["access", "model", "service"]


def test_a_layer_of_which_nothing_is_known_needs_its_role() -> None:
    layers = found()
    del layers["repository"]
    assert "repository" in due_layers(layers, NAMES)
    assert due_layers({}, NAMES) == list(NAMES)


def test_what_builds_on_a_changed_layer_follows() -> None:
    due = due_layers(found(kernel="drift"), NAMES)
    assert due == ["kernel", "driver", "model", "service"]


def test_a_dpkg_that_was_interrupted_is_for_the_layers_with_packages() -> None:
    due = due_layers(found(platform="drift", kernel="not_applicable"), NAMES)
    assert due == ["platform", "driver", "oneapi", "model", "service"]


@pytest.mark.parametrize("status", ["drift", "missing", "not_looked_at"])
def test_a_platform_that_is_not_in_order_is_due_also_where_no_role_follows(status: str) -> None:
    without = dict.fromkeys(("kernel", "driver", "oneapi"), "not_applicable")
    layers = found(platform=status, **without)
    layers["platform"]["unseen"] = [{"what": "dpkg", "why": "no right"}]
    due = due_layers(layers, NAMES)
    assert due == ["platform"]
    assert reasons(layers, due) == ["platform: dpkg: not looked at, no right"]
    assert due_layers(layers, chosen_layers(["service"])) == ["platform"]


def test_a_layer_that_the_stack_has_not_never_runs() -> None:
    assert "driver" not in due_layers(found(repository="drift", driver="not_applicable"), NAMES)


def test_only_chosen_layers_run() -> None:
    chosen = chosen_layers(["kernel", "access"])
    assert due_layers(found(kernel="drift", python="drift"), chosen) == ["kernel"]
    # The audit does not look at layers that nobody chose: the repository, on which the kernel builds, is one.
    looked_at = {name: layer for name, layer in found().items() if name in chosen}
    assert due_layers(looked_at, chosen) == []


@pytest.mark.parametrize(
    ("run", "skip", "chosen"),
    [
        (["all"], [], list(NAMES)),
        (["tagged"], [], list(NAMES)),
        (["kernel", "repository"], [], ["platform", "repository", "kernel"]),
        (["service"], [], ["platform", "model", "service"]),
        (["all"], ["service", "model"], [name for name in NAMES if name not in ("service", "model")]),
        # The service opens what role model brings.
        (["all"], ["model"], [name for name in NAMES if name not in ("service", "model")]),
        (["service"], ["model"], ["platform"]),
        (["elsewhere"], [], ["platform"]),
    ],
)
def test_tags_choose_layers(run: list[str], skip: list[str], chosen: list[str]) -> None:
    assert chosen_layers(run, skip) == chosen


def test_layers_build_on_layers_below_them() -> None:
    for layer in LAYERS:
        assert all(NAMES.index(name) < NAMES.index(layer.name) for name in (*layer.builds_on, *layer.runs_with))


def test_every_layer_that_runs_says_why() -> None:
    layers = found(driver="drift", python="not_looked_at")
    layers["driver"]["findings"] = [{"what": f"package {name}", "expected": "1", "found": "absent"} for name in "abc"]
    layers["python"]["unseen"] = [{"what": "the environment", "why": "no right"}]
    assert reasons(layers, ["driver", "python", "service"]) == [
        "driver: package a: expected 1, found absent; package b: expected 1, found absent (and 1 more)",
        "python: the environment: not looked at, no right",
        "service: follows a layer that changes",
    ]
