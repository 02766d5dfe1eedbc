"""The packages of a resolved stack: those of its driver, by side, and all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Package to exact version, "" for any.
Versions = dict[str, str]


def driver_packages(resolved: Mapping[str, Any], dkms: bool, kernel: str = "") -> dict[str, Versions]:
    """Return the driver's packages: ``kernel`` to build modules with DKMS, ``user`` for the rest.

    KERNEL is the release to build modules for if the stack names none; if it is unknown, packages with it in
    their name are omitted. The firmware goes with the modules: a kernel that boots with one of them needs
    the other.
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
            **{
                name.replace("{kernel}", release): ""
                for name in driver.get("build_tools", [])
                if release or "{kernel}" not in name
            },
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
    """Return every package that the roles install for a resolved stack, with its exact version or ""."""
    stacks = resolved["kernel"]
    own: Versions = stacks.get("packages", {})
    packages: Versions = {}
    if not resolved["container"]:
        packages.update(own)
        if stacks["change"]:
            packages[stacks["metapackage"]] = ""
    elif resolved["dkms"]:
        packages.update({name: version for name, version in own.items() if name.startswith("linux-headers-")})
    # apt's answer decides later which kernel comes; packages with its release in their name come with it.
    sides = driver_packages(resolved, resolved["dkms"], "" if stacks["change"] else stacks["running"])
    return {**packages, **sides["kernel"], **sides["user"], **resolved["oneapi"].get("packages", {})}
