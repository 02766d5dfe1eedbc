"""A known-bad combination of cards, kernel and packages, and whether a node has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.boot.kernel_names import (
    abi_of,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (
    Version,
)

REFUSE = "refuse"
WARN = "warn"
#: Confidence of a row: read in source code, a package's version or a table of Intel's; or one credible report.
HIGH = "H"
MEDIUM = "M"
#: Package names of compute runtimes; their versions are equal except for those of the oldest.
RUNTIMES = ("intel-opencl-icd", "libze-intel-gpu1")


@dataclass(frozen=True)
class Range:
    """Versions from ``first`` on, up to and with ``last`` or up to but without ``before``; "" leaves an end open."""

    first: str = ""
    last: str = ""
    before: str = ""

    def has(self, version: str) -> bool:
        """Tell whether a version is in the range, in dpkg's order."""
        found = Version(version)
        return (
            (not self.first or found >= Version(self.first))
            and (not self.last or found <= Version(self.last))
            and (not self.before or found < Version(self.before))
        )


@dataclass(frozen=True)
class KnownBad:
    """One combination. Every field that is set has to match the node; unset fields match all.

    ``devices`` are families or device ids, ``kernels`` ranges of releases without their flavour (Ubuntu's ABI number
    counts), ``packages`` ranges by name, all of which have to match, ``runtime`` ranges of which one of the
    RUNTIMES has to match one, ``lacking`` packages of which at least one is missing.
    """

    name: str
    symptom: str
    remedy: str
    source: str
    effect: str = WARN
    confidence: str = HIGH
    devices: tuple[str, ...] = ()
    driver: str = ""
    small_bar: bool = False
    cards: int = 1
    integrated: bool = False
    stacks: tuple[str, ...] = ()
    kernels: tuple[Range, ...] = ()
    runtime: tuple[Range, ...] = ()
    packages: Mapping[str, tuple[Range, ...]] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the combination in words."""
        accept = f"xpu_known_bad_accepted: [{self.name}] overrides this refusal" if self.effect == REFUSE else self.name
        return f"{self.symptom}: {self.remedy} ({self.source}; {accept})"

    @property
    def of_packages(self) -> bool:
        """Whether it depends on packages that apt installs."""
        return bool(self.packages or self.runtime or self.lacking)


@dataclass(frozen=True)
class Situation:
    """A node's present or future state: GPUs as gpu_info has them, a kernel release, versions of packages."""

    gpus: Sequence[Mapping[str, Any]] = ()
    kernel: str = ""
    packages: Mapping[str, str] = field(default_factory=dict)
    stack: str = ""
    #: Whether the processor's own graphics are present.
    integrated: bool = False
    #: Names of combinations whose risk the operator accepts: they only warn.
    accepted: Sequence[str] = ()


def is_there(entry: KnownBad, situation: Situation) -> bool:
    cards = [gpu for gpu in situation.gpus if _is_of(entry, gpu)]
    kernel = abi_of(situation.kernel)
    return (
        len(cards) >= entry.cards
        and (not entry.integrated or situation.integrated)
        and (not entry.stacks or situation.stack in entry.stacks)
        and (not entry.kernels or (bool(kernel) and any(span.has(kernel) for span in entry.kernels)))
        and (not entry.runtime or _has_runtime(entry, situation.packages))
        and all(_meets(spans, situation.packages.get(name, "")) for name, spans in entry.packages.items())
        and (not entry.lacking or any(name not in situation.packages for name in entry.lacking))
    )


def _is_of(entry: KnownBad, gpu: Mapping[str, Any]) -> bool:
    window = int(gpu.get("memory_bar_bytes", 0))
    return (
        (not entry.devices or gpu["family"] in entry.devices or gpu["id"].partition(":")[2] in entry.devices)
        and (not entry.driver or gpu.get("driver") == entry.driver)
        # An unreadable BAR does not count as a small one.
        and (not entry.small_bar or (window > 0 and not gpu.get("resizable_bar")))
    )


def _has_runtime(entry: KnownBad, packages: Mapping[str, str]) -> bool:
    return any(_meets(entry.runtime, packages.get(name, "")) for name in RUNTIMES)


def _meets(spans: Iterable[Range], version: str) -> bool:
    """Tell whether a package's version is in a range; rows have upstream versions, without the packagers' suffix."""
    upstream = version.rpartition("-")[0] or version
    return bool(version) and any(span.has(upstream) for span in spans)
