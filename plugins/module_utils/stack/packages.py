"""The packages that a resolved stack installs: those of its driver, by side, and all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Package to exact version, "" for any.
Versions = dict[str, str]


def driver_packages(resolved: Mapping[str, Any], dkms: bool, kernel: str = "") -> dict[str, Versions]:
    """Return the driver's packages: ``kernel`` to build modules with DKMS, ``user`` for the rest.

    KERNEL is the release that modules are built for where the stack names none. The firmware goes with the modules: a
    kernel that is booted with the one has to find the other.
    """
    driver = resolved.get("driver") or {}
    modules = driver.get("dkms", []) if dkms else []
    firmware: Versions = driver.get("firmware", {})
    built: Versions = {}
    if modules:
        stacks = resolved.get("kernel") or {}
        release = stacks.get("release") or kernel
        headers = f"linux-headers-{release}"
        built = {
            **dict.fromkeys(driver.get("build_tools", []), ""),
            **({headers: stacks.get("packages", {}).get(headers, "")} if release else {}),
            **{entry["package"]: entry["version"] for entry in modules},
            **firmware,
        }
    used = {
        **dict.fromkeys(driver.get("diagnostics", []), ""),
        **({} if modules else firmware),
        **driver.get("packages", {}),
    }
    return {"kernel": built, "user": used}


def pinned_packages(resolved: Mapping[str, Any]) -> Versions:
    """Return every package that the roles will install for a resolved stack, with its exact version or ""."""
    stacks = resolved["kernel"]
    own: Versions = stacks.get("packages", {})
    packages: Versions = {}
    if not resolved["container"]:
        packages.update(own)
        if stacks["upgrade"]:
            packages[stacks["metapackage"]] = ""
    elif resolved["dkms"]:
        packages.update({name: version for name, version in own.items() if name.startswith("linux-headers-")})
    sides = driver_packages(resolved, resolved["dkms"])
    return {**packages, **sides["kernel"], **sides["user"], **resolved["oneapi"].get("packages", {})}
