"""What a gateway serves, and what it refuses before any change."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.gateway import GatewayError, keys, known_instances, moved, pools

ENDPOINTS = {"model": "m", "host": "0.0.0.0", "port": 8000, "agent_port": 9000, "instances": 2, "requests": 0}  # noqa: S104
KEY = "sixteen-or-more-characters"


def node(**changes: Any) -> dict[str, Any]:
    return {"ansible_host": "192.0.2.7", "inference_endpoints": {**ENDPOINTS, **changes}}


def test_every_instance_of_every_node_is_served() -> None:
    found = known_instances(["n1"], {"n1": node()}, {}, 0)
    both = {"address": "192.0.2.7", "tls": False, "model": "m", "text_models": {}, "requests": 16}
    assert found == {
        "n1": [
            {**both, "name": "n1-0", "port": 8000, "agent_port": 9000},
            {**both, "name": "n1-1", "port": 8001, "agent_port": 9001},
        ]
    }


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        (node(host="192.0.2.9"), "192.0.2.9"),
        (node(host="2001:db8::1"), "[2001:db8::1]"),
        ({"inference_endpoints": ENDPOINTS}, "n1"),
    ],
)
def test_an_instance_is_asked_where_it_listens(variables: dict[str, Any], address: str) -> None:
    assert known_instances(["n1"], {"n1": variables}, {}, 0)["n1"][0]["address"] == address


@pytest.mark.parametrize(("requests", "said", "expected"), [(0, 0, 16), (0, 4, 4), (3, 4, 3)])
def test_an_instance_gets_what_the_operator_the_node_or_nobody_says(requests: int, said: int, expected: int) -> None:
    found = known_instances(["n1"], {"n1": node(requests=said)}, {}, requests)
    assert {instance["requests"] for instance in found["n1"]} == {expected}


def test_no_agent_is_asked_where_there_is_none() -> None:
    found = known_instances(["n1"], {"n1": node(agent_port=0)}, {}, 0)
    assert [instance["agent_port"] for instance in found["n1"]] == [0, 0]


def test_an_instance_is_asked_over_tls_where_it_has_a_certificate() -> None:
    assert known_instances(["n1"], {"n1": node(tls=True)}, {}, 0)["n1"][0]["tls"]


def test_a_node_that_is_not_reached_keeps_its_instances() -> None:
    earlier = known_instances(["n1", "n2"], {"n1": node(), "n2": node()}, {}, 0)
    assert known_instances(["n1", "n2"], {"n1": node(), "n2": {}}, earlier, 0) == earlier
    assert list(known_instances(["n1"], {"n1": node()}, earlier, 0)) == ["n1"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "n"}, "n at "),
        ({"agent_port": 1}, "(agent 1)"),
        ({"embedding_model": "/srv/bge"}, "m, bge at "),
        ({"embedding_model": "", "rerank_model": ""}, ""),
    ],
)
def test_what_gateways_would_not_find_again_is_named(changes: dict[str, Any], said: str) -> None:
    known = known_instances(["n1"], {"n1": node()}, {}, 3)
    found = moved("n1", node(**changes), known)
    assert said in found and bool(found) == bool(said)
    assert moved("n2", node(), known) == ""


@pytest.mark.parametrize(
    ("nodes", "variables", "words"),
    [
        ([], {}, "gateway_nodes is empty"),
        (["n1"], {}, "n1 has no known instance"),
        (["n1"], {"n1": node(host="127.0.0.1")}, "n1 listens only on 127.0.0.1: set its inference_host"),
        (["n1"], {"n1": node(host="::1")}, "n1 listens only on ::1"),
        (["n1"], {"n1": node(model="other model")}, "n1 has a model whose name has white space, .*'other model'"),
        (["n1"], {"n1": node(rerank_model="/srv/my models/first one")}, "white space, .*: 'first one'"),
    ],
)
def test_what_cannot_be_served_is_named(nodes: list[str], variables: dict[str, Any], words: str) -> None:
    with pytest.raises(GatewayError, match=words):
        known_instances(nodes, variables, {}, 0)


def test_all_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(GatewayError, match=r"n1 listens .* n2 has no known instance"):
        known_instances(["n1", "n2"], {"n1": node(host="127.0.0.1")}, {}, 0)


def test_each_model_has_a_pool() -> None:
    nodes = {"n1": node(), "n2": node(model="owner/other-model")}
    found = pools(known_instances(["n1", "n2"], nodes, {}, 0))
    assert [(pool["model"], [each["name"] for each in pool["instances"]]) for pool in found] == [
        ("m", ["n1-0", "n1-1"]),
        ("owner/other-model", ["n2-0", "n2-1"]),
    ]
    assert all(pool["name"].replace("-", "").isalnum() for pool in found)


def test_models_for_texts_have_pools_of_their_own() -> None:
    texts = {"embedding_model": "/srv/models/bge/", "rerank_model": "/srv/models/m"}
    nodes = {"n1": node(instances=1), "n2": node(instances=1, **texts)}
    found = pools(known_instances(["n1", "n2"], nodes, {}, 0))
    assert [(pool["kind"], pool["model"], [each["name"] for each in pool["instances"]]) for pool in found] == [
        ("chat", "m", ["n1-0", "n2-0"]),
        ("embedding", "bge", ["n2-0"]),
        ("rerank", "m", ["n2-0"]),
    ]
    assert len({pool["name"] for pool in found}) == 3


def test_instances_that_an_earlier_version_wrote_down_are_served() -> None:
    earlier = known_instances(["n1"], {"n1": node(instances=1)}, {}, 0)
    del earlier["n1"][0]["text_models"]
    known = known_instances(["n1"], {"n1": {}}, earlier, 0)
    assert [(pool["kind"], pool["model"]) for pool in pools(known)] == [("chat", "m")]
    assert moved("n1", node(instances=1), known) == ""


def test_keys_are_kept_as_digests_with_names() -> None:
    found = keys([KEY, f"team-a {KEY}-2", f"team-b:3 {KEY}-3"])
    assert [key["name"] for key in found] == ["key-1", "team-a", "team-b"]
    assert found[0]["digest"] == hashlib.sha256(KEY.encode()).hexdigest().upper()
    assert KEY not in str(found)


@pytest.mark.parametrize(
    "given",
    [
        ["short"],
        [f"{KEY}\n"],
        [f"#{KEY}"],
        [17],
        [f"a b {KEY}"],
        [f"a\tb {KEY}"],
        [f":1 {KEY}"],
        [f" {KEY}"],
        [f"a {KEY}", f"a {KEY}-2"],
    ],
)
def test_a_malformed_key_is_named_by_its_place_and_not_shown(given: list[Any]) -> None:
    with pytest.raises(GatewayError) as raised:
        keys(given)
    assert f"gateway_api_keys[{len(given) - 1}]" in str(raised.value)
    assert KEY not in str(raised.value)
