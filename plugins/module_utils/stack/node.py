"""Inputs of the choice of a stack: facts of the node, and the operator's request."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

AUTO = "auto"


@dataclass(frozen=True)
class NodeFacts:
    """The node's facts that the choice of a stack depends on."""

    distribution: str
    release: str
    codename: str
    kernel: str
    architecture: str = "x86_64"
    gpus: list[dict[str, Any]] = field(default_factory=list)
    container: bool = False
    secure_boot: bool = False
    #: GPUs at the last check, in the form of ``gpus``.
    known: list[dict[str, Any]] = field(default_factory=list)
    #: Addresses of GPUs assigned to instances of the service.
    served: list[str] = field(default_factory=list)
    #: Whether the processor's own graphics are present.
    integrated: bool = False
    #: Intel's cards without a stack.
    uncovered: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lost(self) -> list[dict[str, Any]]:
        """GPUs that the node had and lost; the address, if only the service knew one."""
        had = {
            **{address: {"address": address} for address in self.served},
            **{gpu["address"]: gpu for gpu in self.known},
        }
        there = {gpu["address"] for gpu in self.gpus}
        return [had[address] for address in sorted(set(had) - there)]

    @property
    def families(self) -> list[str]:
        """The families of the GPUs."""
        return sorted({gpu["family"] for gpu in self.gpus})

    @property
    def system(self) -> str:
        """Name and release of the distribution."""
        return f"{self.distribution} {self.release}"

    def describe_gpus(self) -> str:
        """The GPUs with their PCI ids, for messages."""
        return ", ".join(map(described, self.gpus)) or "none"


@dataclass(frozen=True)
class StackRequest:
    """The operator's request; "" and empty leave the choice to the stack."""

    stack: str = AUTO
    engine: str = ""
    device: str = ""
    oneapi_components: list[str] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)
    ppa: bool = False
    dkms: str = AUTO
    #: Addresses of GPUs that the operator removed for good.
    lost_gpus: list[str] = field(default_factory=list)
    #: Names of known-bad combinations whose risk the operator accepts.
    known_bad_accepted: list[str] = field(default_factory=list)


def described(gpu: dict[str, Any]) -> str:
    """Return a GPU in words, or its address if nothing else is known."""
    return f"{gpu['name']} ({gpu['id']}) at {gpu['address']}" if "id" in gpu else f"a GPU at {gpu['address']}"
