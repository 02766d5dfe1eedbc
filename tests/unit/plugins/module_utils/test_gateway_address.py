"""How gateways share an address, and what is refused before any change."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.gateway import GatewayError
from ansible_collections.xpu.fleet.plugins.module_utils.gateway_address import peers

HOSTS: dict[str, dict[str, Any]] = {"door1": {"ansible_host": "192.0.2.1"}, "door2": {"ansible_host": "192.0.2.2"}}
SETTINGS = {"address": "192.0.2.5/24", "interface": "eth0", "own_address": "192.0.2.1", "host": "0.0.0.0"}  # noqa: S104
LINKS: list[dict[str, Any]] = [
    {"ifname": "lo"},
    {"ifname": "eth0", "addr_info": [{"local": "192.0.2.1"}, {"local": "2001:db8::1"}]},
]


def test_the_first_gateway_is_preferred_and_knows_the_others() -> None:
    assert peers("door1", [*HOSTS], HOSTS, SETTINGS, LINKS) == {
        "own": "192.0.2.1",
        "peers": ["192.0.2.2"],
        "priority": 200,
    }
    links: list[dict[str, Any]] = [{"ifname": "eth0", "addr_info": [{"local": "192.0.2.9"}]}]
    found = peers("door2", [*HOSTS], HOSTS, {**SETTINGS, "own_address": "192.0.2.9"}, links)
    assert found == {"own": "192.0.2.9", "peers": ["192.0.2.1"], "priority": 199}


def test_another_gateways_own_address_wins_over_that_of_its_connection() -> None:
    hosts = {"door1": {}, "door2": {"ansible_host": "door2.example.com", "gateway_own_address": "192.0.2.9"}}
    assert peers("door1", [*hosts], hosts, SETTINGS, LINKS)["peers"] == ["192.0.2.9"]


def test_an_address_of_version_6_is_shared_too() -> None:
    hosts = {"door1": {}, "door2": {"ansible_host": "2001:db8::2"}}
    asked = {**SETTINGS, "address": "2001:db8::5/64", "own_address": "2001:db8::1", "host": "::"}
    assert peers("door1", [*hosts], hosts, asked, LINKS)["own"] == "2001:db8::1"


@pytest.mark.parametrize(
    ("gateways", "hosts", "settings", "said"),
    [
        (["door1"], {}, {}, "needs door1 and another gateway in gateway_peers, which has: door1."),
        (["door2", "door3"], {}, {}, "which has: door2, door3."),
        (
            ["door1", "door2"],
            {},
            {"host": "192.0.2.1"},
            "gateway_host is 192.0.2.1, where requests to gateway_address do",
        ),
        (["door1", "door2"], {}, {"interface": "eth7"}, "gateway_address_interface is eth7: set one of eth0, lo."),
        (["door1", "door2"], {}, {"interface": ""}, "gateway_address_interface is empty: set one of eth0, lo."),
        (["door1", "door2"], {}, {"interface": "lo", "own_address": "192.0.2.7"}, "lo does not have 192.0.2.7:"),
        (["door1", "door2"], {}, {"own_address": "192.0.2.7"}, "eth0 does not have 192.0.2.7: set gateway_own_address"),
        (["door1", "door2"], {"door2": {}}, {}, "door2 has no IP address in ansible_host (door2): set its gateway_own"),
        (
            ["door1", "door2"],
            {"door2": {"ansible_host": "2001:db8::2"}},
            {},
            "is 2001:db8::2: set one of IP version 4.",
        ),
        (
            ["door1", "door2"],
            {},
            {"address": "192.0.2.2/24"},
            "gateway_address is the own address of door2: use one that",
        ),
        (
            ["door1", "door2"],
            {"door2": {"ansible_host": "192.0.2.2", "gateway_address": "192.0.2.6/24"}},
            {},
            "door2 has another gateway_address: set it for group gateways.",
        ),
    ],
)
def test_what_cannot_be_shared_is_named(
    gateways: list[str], hosts: dict[str, Any], settings: dict[str, str], said: str
) -> None:
    with pytest.raises(GatewayError) as raised:
        peers("door1", gateways, {**HOSTS, **hosts}, {**SETTINGS, **settings}, LINKS)
    assert said in str(raised.value)
