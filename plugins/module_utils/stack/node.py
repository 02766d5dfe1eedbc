"""What the choice of a stack depends on: the node, and what the operator asks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

AUTO = "auto"


@dataclass(frozen=True)
class NodeFacts:
    """What the choice of a stack depends on."""

    distribution: str
    release: str
    codename: str
    kernel: str
    architecture: str = "x86_64"
    gpus: list[dict[str, Any]] = field(default_factory=list)
    container: bool = False
    secure_boot: bool = False
    #: GPUs that were there when somebody looked last, in the form of ``gpus``.
    known: list[dict[str, Any]] = field(default_factory=list)
    #: Addresses of GPUs that instances of the service were given.
    served: list[str] = field(default_factory=list)
    #: Whether the processor's own graphics are there too.
    integrated: bool = False
    #: Intel's cards that no stack is made for.
    uncovered: list[dict[str, Any]] = field(default_factory=list)

    @property
    def lost(self) -> list[dict[str, Any]]:
        """GPUs that the node had and has no longer; of those that only the service knew, the address."""
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
    """What the operator asks for; "" and empty leave the choice to the stack."""

    stack: str = AUTO
    engine: str = ""
    device: str = ""
    oneapi_components: list[str] = field(default_factory=list)
    overrides: dict[str, Any] = field(default_factory=dict)
    ppa: bool = False
    dkms: str = AUTO
    #: Addresses of GPUs that are gone for good, by the operator's word.
    lost_gpus: list[str] = field(default_factory=list)
    #: Names of known-bad combinations that the operator takes the risk of.
    known_bad_accepted: list[str] = field(default_factory=list)


def described(gpu: dict[str, Any]) -> str:
    """Return a GPU in words, by its address alone where nothing else is known of it."""
    return f"{gpu['name']} ({gpu['id']}) at {gpu['address']}" if "id" in gpu else f"a GPU at {gpu['address']}"
