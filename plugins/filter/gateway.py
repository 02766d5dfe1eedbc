"""Filters of role gateway."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.xpu.fleet.plugins.module_utils import gateway, gateway_address


def gateway_instances(
    nodes: Sequence[str], variables: Mapping[str, Mapping[str, Any]], earlier: Mapping[str, Any], requests: int
) -> dict[str, list[dict[str, Any]]]:
    """Return the instances of each node."""
    try:
        return gateway.known_instances(nodes, variables, earlier, requests)
    except gateway.GatewayError as error:
        raise AnsibleFilterError(str(error)) from None


def gateway_keys(given: Sequence[Any]) -> list[dict[str, str]]:
    """Return name and digest of each key."""
    try:
        return gateway.keys(given)
    except gateway.GatewayError as error:
        raise AnsibleFilterError(str(error)) from None


def gateway_moved(node: str, variables: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return how a node's addresses differ from those that the gateways know, "" if they do not."""
    try:
        return gateway.moved(node, variables, known)
    except gateway.GatewayError as error:
        raise AnsibleFilterError(str(error)) from None


def gateway_peers(
    name: str,
    gateways: Sequence[str],
    variables: Mapping[str, Mapping[str, Any]],
    settings: Mapping[str, str],
    links: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """Return a gateway's own address, those of the others, and its priority."""
    try:
        return gateway_address.peers(name, gateways, variables, settings, links)
    except gateway.GatewayError as error:
        raise AnsibleFilterError(str(error)) from None


class FilterModule:
    """For Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "gateway_instances": gateway_instances,
            "gateway_pools": gateway.pools,
            "gateway_keys": gateway_keys,
            "gateway_moved": gateway_moved,
            "gateway_peers": gateway_peers,
        }
