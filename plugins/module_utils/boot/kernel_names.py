"""Kernels by their packages' names: which belong to which release, which is newer, which may be removed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import Simulation
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import Version

#: Kinds of kernel packages, as their names have them between "linux-" and the release.
_PARTS = "image|headers|modules|tools|cloud-tools|buildinfo|objects|signatures|kbuild|config|lib-rust"
#: Before the release, the target of headers and tools that several kernels share: "hwe-6.5-", "oem-6.5-",
#: "lowlatency-hwe-6.5-", "nvidia-6.5-", "intel-iotg-".
_PACKAGE = re.compile(
    rf"^linux-(?:(?!(?:firmware|source|doc)-)[a-z][a-z0-9+]*-(?:\d+(?:\.\d+)*-)?)*?"
    rf"(?:{_PARTS})-(?:[a-z][a-z0-9+]*-|\d+-(?:open-|server-)*(?=\d))*?"
    r"(?P<release>\d+\.\d+\.\d+(?:[-+.~][\w.+~-]*?)?)(?:-(?:unsigned|dbg|dbgsym))?$"
)
#: Metapackages, which follow the newest kernel of a flavour: "linux-generic-hwe-22.04", "linux-image-oem-22.04c",
#: "linux-headers-aws", "linux-modules-nvidia-535-generic-hwe-22.04", Debian's "linux-image-cloud-amd64".
_METAPACKAGE = re.compile(
    r"^linux-(?!(?:firmware|source|doc|base|libc|compiler|kbuild|config|support)-)(?:[a-z0-9+.]+-)*?"
    r"(?:generic|virtual|lowlatency|oem|aws|azure|gcp|gke|gkeop|ibm|intel|iotg|kvm|nvidia|oracle|raspi|realtime|rt|hwe|amd64|686|arm64)"
    r"(?:-[a-z0-9+.]+)*$"
)


def release_of(package: str) -> str:
    """Return the release of a kernel's package, "" for any other package.

    Headers shared by several kernels name no flavour, or "common".
    """
    match = _PACKAGE.match(package)
    return match["release"] if match else ""


def is_metapackage(package: str) -> bool:
    """Tell whether a package name is a metapackage that follows the newest kernel of a flavour."""
    return bool(_METAPACKAGE.match(package)) and not release_of(package)


def abi_of(release: str) -> str:
    """Return a release without its flavour: 6.8.0-31 of 6.8.0-31-generic."""
    return re.sub(r"-[a-z].*$", "", release)


@dataclass(frozen=True)
class Span:
    """Releases of the kernel from ``at_least`` on and before ``before``; "" leaves an end open."""

    at_least: str
    before: str = ""

    def has(self, release: str) -> bool:
        """Tell whether a release is in the span; the number of Ubuntu's ABI counts too."""
        version = Version(abi_of(release))
        return version >= Version(self.at_least) and not (self.before and version >= Version(self.before))

    def __str__(self) -> str:
        """Return the span in words."""
        return f"{self.at_least} or newer" + (f" and older than {self.before}" if self.before else "")


def belongs(package: str, release: str) -> bool:
    """Tell whether a package belongs to a kernel release, or is shared by it."""
    own = release_of(package)
    abi = abi_of(release)
    return own != "" and (own in (release, abi) or own.startswith(f"{abi}-common"))


def is_newer(release: str, than: str) -> bool:
    """Tell whether a kernel release is newer than another one, regardless of flavour."""
    return Version(abi_of(release)) > Version(abi_of(than))


def superfluous(
    packages: Iterable[str], newer_than: str, metapackages: Iterable[str], protected: Iterable[str]
) -> list[str]:
    """Return the packages of kernels newer than a release, and metapackages, except those of protected releases."""
    kept = list(protected)
    metas = set(metapackages)
    return sorted(
        name
        for name in packages
        if name in metas
        or (
            release_of(name)
            and is_newer(release_of(name), newer_than)
            and not any(belongs(name, release) for release in kept)
        )
    )


def objections(
    simulation: Simulation,
    wanted: Iterable[str],
    protected: Iterable[str],
    held: Iterable[str],
    automatic: Iterable[str],
) -> list[str]:
    """Return why a simulated removal must not be carried out.

    A metapackage of a removed kernel goes along, as it would bring that kernel back: a manual installation is no
    reason to keep it.
    """
    named, kept, auto = set(wanted), list(protected), set(automatic)
    found = []
    for name in simulation.removed:
        owners = [release for release in kept if belongs(name, release)]
        if owners:
            found.append(f"{name} of kernel {owners[0]} would go")
        elif name in held:
            found.append(f"{name}, which is held, would go")
        elif name not in named and name not in auto and not is_metapackage(name):
            found.append(f"{name}, which was installed by hand, would go along")
    return found + [f"{name} would be installed" for name in simulation.installed]
