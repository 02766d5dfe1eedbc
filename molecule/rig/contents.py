"""What a mirror holds for the nodes of a fleet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rig import debian
from rig.mirror import Mounts
from rig.node import Node


def mounts(nodes: Sequence[Node]) -> Mounts:
    """Return the folders of the cache to serve to these nodes; makes what is missing."""
    found: Mounts = {}
    for userland in {node.userland.repository: node.userland for node in nodes}.values():
        found[f"/{userland.repository}"] = [str(debian.mirror(userland.suite))]
    return found


def facts(nodes: Sequence[Node]) -> dict[str, Any]:
    """Return what an inventory has to know of the mirror's content."""
    return {}


def sources(node: Node) -> str:
    """Return the apt sources a node has from its installation."""
    userland = node.userland
    return debian.sources(node.mirror, userland.repository, [userland.suite])
