"""A stack's requirements of a node before any change: kernel, Secure Boot, drivers, no known-bad combination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.boot.kernel_names import (
    abi_of,
)
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.combination import HIGH, REFUSE, Situation
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.known_bad import found
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (
    Version,
)
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import StackError, applies
from ansible_collections.xpu.fleet.plugins.module_utils.stack.node import NodeFacts, described


def kernel_of(name: str, stack: dict[str, Any], node: NodeFacts, dkms: bool) -> dict[str, Any]:
    """Return role kernel's input: one release, or a range of releases and the metapackage that installs one.

    ``change`` is whether the running kernel is out of that range. Raises StackError without a kernel to install.
    """
    kernel = {
        **{"release": "", "packages": {}, "metapackages": [], "metapackage": "", "before": ""},
        **stack["kernel"],
        "at_least": least_kernel(stack, node, HIGH),
        "running": node.kernel,
        "change": False,
    }
    if kernel["release"] or not kernel["at_least"]:
        return kernel
    # A container's kernel belongs to its host; if it drives the cards, it is new enough.
    if node.container and (not dkms or all(gpu.get("driver") for gpu in node.gpus)):
        return {**kernel, "at_least": ""}
    if not _older(node.kernel, kernel["at_least"]) and not (
        kernel["before"] and not _older(node.kernel, kernel["before"])
    ):
        return kernel
    if node.container or not kernel["metapackage"]:
        newest = f" and older than {kernel['before']}" if kernel["before"] else ""
        raise StackError(
            f"Stack {name} needs kernel {kernel['at_least']} or newer{newest} for {node.describe_gpus()} and this node "
            f"runs {node.kernel}, and this run cannot change it: boot such a kernel first."
        )
    return {**kernel, "change": True}


def check_node(
    stack: dict[str, Any], resolved: dict[str, Any], node: NodeFacts, packages: Mapping[str, str]
) -> list[str]:
    """Return warnings. Raises StackError if the node cannot work with a stack."""
    if node.architecture != "x86_64":
        raise StackError(f"This node is {node.architecture}; Intel's GPU stack supports only x86_64.")
    if not stack["families"]:
        return []
    if len(node.families) > 1:
        raise StackError(
            f"This node mixes GPU families ({node.describe_gpus()}), which need different settings; use one family per "
            "node."
        )
    for entry in stack.get("unsupported", ()):
        cards = [gpu for gpu in node.gpus if _is_of(entry, gpu)]
        if cards:
            raise StackError(f"{described(cards[0])} cannot serve: {entry['reason']} ({entry['source']}).")
    if node.secure_boot and resolved["dkms"] and not node.container:
        raise StackError(
            "Secure Boot is on, and it refuses the kernel modules that DKMS builds for stack "
            f"{resolved['name']}. Turn Secure Boot off in the firmware, or enroll the key with which DKMS signs "
            "(update-secureboot-policy --enroll-key, reboot, and confirm at the machine's screen)."
        )
    return [*_unbound(resolved, node), *_old_kernel(stack, node), *_known_bad(resolved, node, packages)]


def _unbound(resolved: dict[str, Any], node: NodeFacts) -> list[str]:
    """Refuse a card that no driver can bind to; return what will unbind a driver at the next boot."""
    warnings = []
    for gpu in node.gpus if not node.container else ():
        reasons = "; ".join(gpu.get("blocked") or ())
        if reasons and not gpu.get("driver"):
            raise StackError(
                f"No driver can bind to {described(gpu)}: {reasons}. Remove that, run update-grub and update-initramfs "
                "-u -k all, and reboot."
            )
        if reasons:
            warnings.append(f"At the next boot no driver can bind to {described(gpu)}: {reasons}.")
        # If the kernel's own driver is used, no package would change that.
        if (
            "driver" in gpu
            and not gpu["driver"]
            and not resolved["driver"]["module"]
            and not resolved["kernel"]["change"]
        ):
            raise StackError(
                f"No driver is bound to {described(gpu)}, though kernel {node.kernel} should drive it. See journalctl "
                f"-k -g 'i915|xe'; if it was unbound by hand, write {gpu['address']} to /sys/bus/pci/drivers_probe."
            )
    return warnings


def _old_kernel(stack: dict[str, Any], node: NodeFacts) -> list[str]:
    """Return warnings about kernels that one report calls too old."""
    least = least_kernel(stack, node, "")
    if not least or not _older(node.kernel, least) or stack["kernel"].get("release"):
        return []
    return [f"{node.describe_gpus()} may need kernel {least}, and this node runs {node.kernel}."]


def _known_bad(resolved: dict[str, Any], node: NodeFacts, packages: Mapping[str, str]) -> list[str]:
    # In a container the host's kernel counts, unless an image is built there for another.
    release = resolved["kernel"]["release"]
    kernel = release if release and (resolved["dkms"] or not node.container) else node.kernel
    if resolved["kernel"]["change"]:
        kernel = ""  # apt's answer decides later which one it is
    exact = {name: version for name, version in packages.items() if version}
    situation = Situation(
        node.gpus,
        kernel,
        {**dict.fromkeys(packages, ""), **exact},
        resolved["name"],
        node.integrated,
        resolved["known_bad_accepted"],
    )
    there = found(situation)
    refused = [entry for entry in there if entry.effect == REFUSE and resolved["device"] == "gpu"]
    if refused:
        raise StackError(f"{node.describe_gpus()} is known not to work: {'; '.join(map(str, refused))}.")
    return [f"{entry}." for entry in there]


def least_kernel(stack: dict[str, Any], node: NodeFacts, confidence: str) -> str:
    """Return the newest of the minimum kernels of a stack and the node's cards, "" for any kernel."""
    wanted = [
        entry["kernel"]
        for entry in stack.get("minimum_kernels", ())
        if applies(entry, (), node.release)
        and (not confidence or entry["confidence"] == confidence)
        and any(_is_of(entry, gpu) for gpu in node.gpus)
    ]
    return max([*wanted, *filter(None, [stack["kernel"].get("at_least", "")])], key=Version, default="")


def _is_of(entry: dict[str, Any], gpu: dict[str, Any]) -> bool:
    return gpu["family"] in entry["devices"] or gpu["id"].partition(":")[2] in entry["devices"]


def _older(kernel: str, than: str) -> bool:
    return Version(abi_of(kernel)) < Version(than)
