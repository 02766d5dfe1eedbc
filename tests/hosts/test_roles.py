"""Each role by itself: a play of somebody's own that has nothing but it, on a bare node, in the order of the layers.

What a role needs first it says in one message, before it changes anything; what it does, it does once. Each test builds
on what those before it left on the node.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.hosts.nodes import ROOT, Nodes

NODE = "alone-arc"
#: Inputs of roles without a layer: other roles include these, and people use them directly.
VARIABLES: dict[str, dict[str, Any]] = {
    "pinned_packages": {"pinned_packages_versions": {"unzip": ""}, "pinned_packages_record": "mine"},
    "node_reboot": {"node_reboot_reason": "a test", "node_reboot_pending": "nothing", "node_reboot_consent": "allowed"},
}
#: Roles whose knowledge of other hosts comes from another play.
OTHERS = {
    "gateway": {
        "gateway_nodes": [NODE],
        "inference_endpoints": {"host": "192.0.2.9", "port": 8000, "instances": 1, "model": "small"},
    }
}
#: In an order that works on a bare node. Two roles need facts from another one in the same play.
ORDER = {
    "stack": ["stack"],
    "pinned_packages": ["pinned_packages"],
    "graphics_repository": ["graphics_repository"],
    "kernel": ["kernel"],
    "gpu_driver": ["gpu_driver"],
    "render_access": ["render_access"],
    "oneapi": ["oneapi"],
    "python_runtime": ["python_runtime"],
    "model": ["model"],
    "inference": ["model", "inference"],
    "gateway": ["gateway"],
    "node_reboot": ["node_reboot"],
}
#: Roles that are refused on a bare node, and what they have to name.
NEEDS = {
    "gpu_driver": ["xpu.fleet.graphics_repository"],
    "model": ["xpu.fleet.render_access", "xpu.fleet.python_runtime"],
    "inference": ["xpu.fleet.render_access", "xpu.fleet.python_runtime", "xpu.fleet.model"],
}


def full(roles: list[str]) -> list[str]:
    """Return names as a play has them."""
    return [f"xpu.fleet.{role}" for role in roles]


def test_every_role_is_tried() -> None:
    assert set(ORDER) == {path.name for path in (ROOT / "roles").iterdir()}


@pytest.mark.parametrize("role", NEEDS)
def test_a_role_says_what_it_needs_before_it_changes_anything(nodes: Nodes, role: str) -> None:
    for options in (["--check"], []):
        refused = nodes.play(full([role]), NODE, *options)
        assert refused.status == 2, refused.output
        assert refused.changed == {NODE: 0}
        assert refused.output.count("fatal: ") == 1
        assert [name for name in NEEDS[role] if name not in refused.text.partition("fatal: ")[2]] == []
        assert "in the same play" in refused.text


def test_a_gateway_that_knows_no_instance_says_which_playbook_tells_it(nodes: Nodes) -> None:
    refused = nodes.play(full(["gateway"]), NODE)
    assert (refused.status, refused.changed) == (2, {NODE: 0}), refused.output
    assert "Run playbook xpu.fleet.gateway" in refused.text


@pytest.mark.parametrize("role", ORDER)
def test_a_role_by_itself_does_its_work_once(nodes: Nodes, role: str) -> None:
    variables, others = VARIABLES.get(role, {}), ["-e", json.dumps(OTHERS.get(role, {}))]
    tried = nodes.play(full(ORDER[role]), NODE, "--check", *others, **variables)
    assert tried.status == 0, tried.output
    done = nodes.play(full(ORDER[role]), NODE, *others, **variables)
    assert done.status == 0, done.output
    if role == "node_reboot":  # each call is a reboot
        assert done.changed[NODE] > 0
        return
    again = nodes.play(full(ORDER[role]), NODE, *others, **variables)
    assert (again.status, again.changed) == (0, {NODE: 0}), again.output
