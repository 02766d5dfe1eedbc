"""One address for several gateways: which of them has it, and how they reach each other (VRRP)."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import Any, Union

from ansible_collections.xpu.fleet.plugins.module_utils.gateway import GatewayError

#: Priority of the first gateway, of 1 to 254 (RFC 5798, 5.2.4); each further one has one less.
PRIORITY = 200

Address = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


def peers(
    name: str,
    gateways: Sequence[str],
    variables: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, str],
    links: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return ``own``, the gateway's own address, ``peers``, those of the others, and its ``priority``.

    ``settings`` are the gateway's ``address``, ``interface``, ``own_address`` and ``host``; ``links`` is what
    ``ip -json address`` prints there. Raises GatewayError with every problem.
    """
    shared = ipaddress.ip_interface(settings["address"])
    everywhere = "0.0.0.0" if shared.version == 4 else "::"  # noqa: S104 - compared, not bound
    problems = []
    if name not in gateways or len(gateways) < 2:
        problems.append(
            f"gateway_address needs {name} and another gateway in gateway_peers, which has: "
            f"{', '.join(gateways) or 'none'}."
        )
    if settings["host"] not in ("::", everywhere):
        problems.append(
            f"gateway_host is {settings['host']}, where requests to gateway_address do not arrive: set {everywhere}."
        )
    known = {str(link["ifname"]): _addresses(link) for link in links}
    if settings["interface"] not in known:
        problems.append(
            f"gateway_address_interface is {settings['interface'] or 'empty'}: set one of {', '.join(sorted(known))}."
        )
    found: dict[str, Address] = {}
    for gateway in gateways:
        said = variables.get(gateway, {})
        given = settings["own_address"] if gateway == name else _own_address(gateway, said)
        try:
            found[gateway] = ipaddress.ip_address(given)
        except ValueError:
            problems.append(f"{gateway} has no IP address in ansible_host ({given}): set its gateway_own_address.")
            continue
        if found[gateway].version != shared.version:
            problems.append(f"gateway_own_address of {gateway} is {given}: set one of IP version {shared.version}.")
        if found[gateway] == shared.ip:
            problems.append(f"gateway_address is the own address of {gateway}: use one that no host has.")
        if str(said.get("gateway_address") or settings["address"]) != settings["address"]:
            problems.append(f"{gateway} has another gateway_address: set it for group gateways.")
    if name in found and str(found[name]) not in known.get(settings["interface"], [str(found[name])]):
        problems.append(
            f"{settings['interface']} does not have {found[name]}: set gateway_own_address to an address of it."
        )
    if problems:
        raise GatewayError(" ".join(problems))
    return {
        "own": str(found[name]),
        "peers": [str(found[gateway]) for gateway in gateways if gateway != name],
        "priority": PRIORITY - list(gateways).index(name),
    }


def _own_address(gateway: str, said: Mapping[str, Any]) -> str:
    return str(said.get("gateway_own_address") or said.get("ansible_host") or gateway)


def _addresses(link: Mapping[str, Any]) -> list[str]:
    return [str(entry.get("local")) for entry in link.get("addr_info", ())]
