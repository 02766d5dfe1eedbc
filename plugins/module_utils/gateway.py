"""What a gateway serves: every instance of every node, in a pool for each model, and the clients' keys."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: Concurrent requests of an instance whose node leaves that to its engine.
REQUESTS = 16
#: What a model is for: answers, or one of the things about texts.
CHAT, TEXTS = "chat", ("embedding", "rerank")
#: Addresses that stand for all addresses of a node.
_ANY = ("0.0.0.0", "::")  # noqa: S104 - compared, not bound
#: Patterns of a key, the name before it, and the weight of that: keys of the gateway and of the service have one shape.
KEY = r"[!\"$-~][!-~]{15,}"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
WEIGHT = r":[1-9][0-9]{0,2}"


class GatewayError(FleetError):
    """A gateway cannot serve something; the message lists every problem."""


def known_instances(
    nodes: Sequence[str], variables: Mapping[str, Mapping[str, Any]], earlier: Mapping[str, Any], requests: int
) -> dict[str, list[dict[str, Any]]]:
    """Return the instances of each node, by the node's name.

    An unknown node keeps its entry in ``earlier``. ``requests`` is the number of concurrent requests for each
    instance, 0 for the node's own number. Raises GatewayError.
    """
    found, problems = {}, []
    for node in nodes:
        said = variables.get(node, {})
        endpoints = said.get("inference_endpoints")
        if endpoints:
            host = str(endpoints["host"])
            if host == "::1" or host.startswith("127."):
                problems.append(f"{node} listens only on {host}: set its inference_host to an address of its own.")
            address = str(said.get("ansible_host") or node) if host in _ANY else host
            problems += [
                f"{node} has a model whose name has white space, which a gateway cannot find: {name!r}. Rename it."
                for name in models(endpoints).values()
                if re.search(r"\s", name)
            ]
            found[node] = _instances(node, address, endpoints, requests)
        elif earlier.get(node):
            found[node] = earlier[node]
        else:
            problems.append(
                f"{node} has no known instance. Run playbook xpu.fleet.gateway with it or remove it from gateway_nodes."
            )
    if not found and not problems:
        problems.append("gateway_nodes is empty: a gateway serves at least one node.")
    if problems:
        raise GatewayError(" ".join(problems))
    return found


def _instances(node: str, address: str, endpoints: Mapping[str, Any], requests: int) -> list[dict[str, Any]]:
    return [
        {
            "name": server_name(node, index),
            "address": f"[{address}]" if ":" in address else address,
            "port": int(endpoints["port"]) + index,
            "agent_port": int(endpoints["agent_port"]) + index if endpoints.get("agent_port") else 0,
            "tls": bool(endpoints.get("tls")),
            "model": str(endpoints["model"]),
            "text_models": _text_models(endpoints),
            "requests": requests or int(endpoints.get("requests") or REQUESTS),
        }
        for index in range(int(endpoints["instances"]))
    ]


def models(endpoints: Mapping[str, Any]) -> dict[str, str]:
    """Return the names of a node's models by what they are for; those for texts have the names of their directories."""
    return {CHAT: str(endpoints["model"]), **_text_models(endpoints)}


def _text_models(endpoints: Mapping[str, Any]) -> dict[str, str]:
    directories = {kind: str(endpoints.get(f"{kind}_model") or "") for kind in TEXTS}
    return {kind: PurePosixPath(path).name for kind, path in directories.items() if path}


def moved(node: str, variables: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return how a node's addresses differ from the ``known`` ones, "" if they do not or the node is unknown."""
    if node not in known:
        return ""
    there = [_place(instance) for instance in known[node]]
    here = [_place(instance) for instance in known_instances([node], {node: variables}, {}, 0)[node]]
    return "" if here == there else f"{', '.join(here)} instead of {', '.join(there)}"


def _place(instance: Mapping[str, Any]) -> str:
    address = f"{instance['address']}:{instance['port']} (agent {instance['agent_port']})"
    return f"{', '.join(_served(instance).values())} at {address}"


def server_name(node: str, index: int) -> str:
    """Return HAProxy's name for an instance."""
    return f"{re.sub('[^A-Za-z0-9_.-]', '_', node)}-{index}"


def pools(instances: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return a pool for each model: its kind, HAProxy's name, the model's name, and the instances."""
    by_model: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for node in sorted(instances):
        for instance in instances[node]:
            for model in _served(instance).items():
                by_model.setdefault(model, []).append(instance)
    return [
        {"name": _pool_name(*key), "kind": key[0], "model": key[1], "instances": served}
        for key, served in sorted(by_model.items())
    ]


def _served(instance: Mapping[str, Any]) -> dict[str, str]:
    """The same of an instance; an earlier version wrote down no models for texts."""
    return {CHAT: instance["model"], **instance.get("text_models", {})}


def _pool_name(kind: str, model: str) -> str:
    return f"{'model' if kind == CHAT else kind}-{hashlib.sha256(model.encode()).hexdigest()[:12]}"


def keys(given: Sequence[Any]) -> list[dict[str, str]]:
    """Return name and digest of each key, written as inference_api_keys has them: KEY, NAME KEY or NAME:WEIGHT KEY.

    A key without a name is called by its position. Raises GatewayError, with no key in it.
    """
    result: list[dict[str, str]] = []
    for number, entry in enumerate(given):
        place, words = f"gateway_api_keys[{number}]", str(entry).split(" ")
        name, key = words[0].partition(":")[0] if len(words) > 1 else f"key-{number + 1}", words[-1]
        if len(words) > 2 or not re.fullmatch(KEY, key):
            raise GatewayError(
                f"{place} is malformed: a key has 16 or more visible ASCII characters without spaces, does not start "
                "with '#', and may follow a name and a space."
            )
        if not re.fullmatch(NAME, name):
            raise GatewayError(f"{place} has a malformed name: letters, digits, '.', '_' and '-', 64 at most.")
        if name in (known["name"] for known in result):
            raise GatewayError(f"{place} has the name of another key: {name}.")
        result.append({"name": name, "digest": hashlib.sha256(key.encode()).hexdigest().upper()})
    return result
