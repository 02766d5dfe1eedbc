"""Choose the stack of a node and compute everything that the roles read of it.

A stack is one tested combination of kernel, drivers, oneAPI, Python and engine, written as data in
``roles/stack/vars/<name>.yml``. Only this module and its imports read that data.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpu_ids import UNKNOWN
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.known_bad import NAMES
from ansible_collections.xpu.fleet.plugins.module_utils.stack.checks import check_node, kernel_of
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import (
    StackError,
    check_shape,
    merge,
    varied,
)
from ansible_collections.xpu.fleet.plugins.module_utils.stack.node import AUTO, NodeFacts, StackRequest, described
from ansible_collections.xpu.fleet.plugins.module_utils.stack.packages import pinned_packages

__all__ = ["AUTO", "NodeFacts", "StackError", "StackRequest", "check_shape", "merge", "pinned_packages", "resolve"]

DEVICES = ("gpu", "cpu")
DKMS = ("auto", "always", "never")
#: Share of the published speed that counts as healthy: drivers and formats differ. A throttling GPU, or
#: a model that silently runs on the CPU, is below it.
SUSPICIOUS = 0.25
#: Python environments have the engine's and device's name if the device changes their packages; OpenVINO's
#: wheels carry every device.
ENVIRONMENT_OF_ENGINE = {"openvino": "openvino"}


def resolve(definitions: dict[str, dict[str, Any]], node: NodeFacts, request: StackRequest) -> dict[str, Any]:
    """Return the resolved stack of ``node``. Raises StackError with one message that says what to change."""
    for name, definition in definitions.items():
        check_shape(definition, name)
    lent = [gpu for gpu in node.gpus if gpu.get("lent")]
    node = replace(node, gpus=[gpu for gpu in node.gpus if not gpu.get("lent")])
    name = _choose(definitions, node, request.stack, lent)
    stack = merge(varied(definitions[name], node.families, node.release), request.overrides, "xpu_stack_overrides")
    dkms = _builds_modules(stack, node, request.dkms)
    family = node.gpus[0]["family"] if node.gpus and stack["families"] else "none"
    engine = _choose_engine(name, stack, request.engine)
    device = _choose_device(family, request.device, node)
    if request.ppa:
        if not stack.get("optional_repositories"):
            raise StackError(f"stack_ppa is set, but stack {name} offers no optional repository; unset stack_ppa.")
        stack["repositories"] = {**stack["optional_repositories"], **stack["repositories"]}
    resolved = {
        "name": name,
        "title": stack["title"],
        "family": family,
        "gpus": node.gpus if family != "none" else [],
        "lost": _missed(node, request) if family != "none" else [],
        "container": node.container,
        "engine": engine,
        "device": device,
        "dkms": dkms,
        "repositories": {key: _with_codename(value, node) for key, value in stack["repositories"].items()},
        "kernel": kernel_of(name, stack, node, dkms),
        "driver": stack["driver"],
        "oneapi": _oneapi(name, stack["oneapi"], request.oneapi_components),
        "environment": {**stack["environment"].get("all", {}), **stack["environment"].get(family, {})},
        "python": _python(name, stack["python"], engine, device),
        "model": stack["model"],
        "low_bit": stack["low_bit"],
        "known_bad_accepted": _accepted(request.known_bad_accepted),
        "least_speed": stack.get("published_speed", {}).get(family, 0) * SUSPICIOUS if device == "gpu" else 0,
    }
    warnings = check_node(stack, resolved, node, pinned_packages(resolved))
    beside = [_given_away(lent).strip(), _uncovered(node) if family != "none" else ""]
    return {**resolved, "warnings": [*warnings, *filter(None, beside)]}


def _missed(node: NodeFacts, request: StackRequest) -> list[dict[str, str]]:
    missed = [gpu for gpu in node.lost if gpu["address"] not in request.lost_gpus]
    return [{"address": gpu["address"], "id": gpu.get("id", "")} for gpu in missed]


def _choose(definitions: dict[str, dict[str, Any]], node: NodeFacts, wanted: str, lent: list[dict[str, Any]]) -> str:
    if wanted != AUTO:
        if wanted not in definitions:
            raise StackError(
                f"xpu_stack is {wanted!r}, which is not a stack. Known stacks: "
                f"{', '.join([AUTO, *sorted(definitions)])}."
            )
        reason = _misfit(definitions[wanted], node)
        if reason:
            raise StackError(
                f"Stack {wanted} does not fit this node: {reason}. GPUs found: {node.describe_gpus()}. "
                f"Distribution: {node.system}. Set xpu_stack to auto or to a stack that fits.{_given_away(lent)}"
            )
        return wanted
    if UNKNOWN in node.families:
        unknown = ", ".join(described(gpu) for gpu in node.gpus if gpu["family"] == UNKNOWN)
        raise StackError(
            f"{unknown} is newer than this collection's list of cards, so no stack is known to serve it. Use a newer "
            "release of the collection, or report the id to its authors; to serve on the node's CPU until then, set "
            "xpu_stack to cpu."
        )
    if lent and not node.gpus:
        raise StackError(
            f"Every GPU of this node is assigned to something else.{_given_away(lent)} To serve on the node's CPU "
            "instead, set xpu_stack to cpu."
        )
    if node.lost and not node.gpus:
        raise StackError(
            f"This node had {', '.join(map(described, node.lost))}, and now it has no GPU. Check the card and dmesg; "
            "if the card is gone for good, set xpu_stack to cpu."
        )
    if node.uncovered and not node.gpus:
        raise StackError(f"{_uncovered(node)} To serve on the node's CPU instead, set xpu_stack to cpu.")
    tried = []
    for name in sorted(definitions):
        definition = definitions[name]
        # A node with GPUs never silently serves on its CPU: an operator has to name that stack.
        if bool(node.gpus) != bool(definition["families"]):
            reason = "it supports nodes without GPUs" if node.gpus else "it supports nodes with GPUs"
        else:
            reason = _misfit(definition, node)
        if not reason:
            return name
        tried.append(f"{name} ({reason})")
    raise StackError(
        f"No stack fits this node. GPUs found: {node.describe_gpus()}. Distribution: {node.system}. Tried: "
        f"{'; '.join(tried)}. Install a supported distribution, or set xpu_stack."
    )


def _uncovered(node: NodeFacts) -> str:
    if not node.uncovered:
        return ""
    cards = ", ".join(map(described, node.uncovered))
    return f"No stack supports {cards}: the roles do not use such a card."


def _accepted(names: list[str]) -> list[str]:
    for name in names:
        if name not in NAMES:
            close = get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known names: {', '.join(sorted(NAMES))}."
            raise StackError(
                f"xpu_known_bad_accepted has {name!r}, which is not the name of a known-bad combination; {hint}"
            )
    return names


def _given_away(lent: list[dict[str, Any]]) -> str:
    if not lent:
        return ""
    cards = "; ".join(f"{described(gpu)} is {gpu['lent']}" for gpu in lent)
    return (
        f" {cards}: the roles do not use such a card. To use it, remove its id from vfio-pci.ids (kernel's command "
        "line, modprobe.d) or unset its driver_override, and reboot."
    )


def _misfit(definition: dict[str, Any], node: NodeFacts) -> str:
    """Why a stack cannot serve a node; "" if it can."""
    served = [f"{entry['name']} {entry['release']}" for entry in definition["distributions"]]
    if node.system not in served:
        return f"it serves {', '.join(served)}"
    if not definition["families"]:
        return ""
    families = {gpu["family"] for gpu in node.gpus}
    if not families:
        return f"it supports GPUs of family {', '.join(definition['families'])} and none was found"
    others = sorted(families - set(definition["families"]))
    if others:
        return f"it supports GPUs of family {', '.join(definition['families'])}, not {', '.join(others)}"
    return ""


def _choose_engine(name: str, stack: dict[str, Any], wanted: str) -> str:
    engines: list[str] = stack["engines"]
    if wanted and wanted not in engines:
        raise StackError(f"xpu_engine is {wanted!r}; stack {name} runs {', '.join(engines)}.")
    return wanted or engines[0]


def _choose_device(family: str, wanted: str, node: NodeFacts) -> str:
    if wanted and wanted not in DEVICES:
        raise StackError(f"xpu_device is {wanted!r}; it must be {' or '.join(DEVICES)}.")
    if wanted == "gpu" and family == "none":
        raise StackError(
            f"xpu_device is gpu, but the stack of this node uses no GPU (GPUs found: {node.describe_gpus()})."
        )
    return wanted or ("cpu" if family == "none" else "gpu")


def _builds_modules(stack: dict[str, Any], node: NodeFacts, wanted: str) -> bool:
    """Whether DKMS builds modules: by default if the kernel is the node's own."""
    if wanted not in DKMS:
        raise StackError(f"xpu_dkms is {wanted!r}; it must be {', '.join(DKMS)}.")
    if not stack["driver"].get("dkms"):
        return False
    return wanted == "always" or (wanted == AUTO and not node.container)


def _oneapi(name: str, oneapi: dict[str, Any], wanted: list[str]) -> dict[str, Any]:
    known = oneapi.get("components", {})
    unknown = [component for component in wanted if component not in known]
    if unknown:
        raise StackError(
            f"xpu_oneapi_components names {', '.join(unknown)}; stack {name} offers "
            f"{', '.join(sorted(known)) or 'none'}."
        )
    if not oneapi:
        return {}
    packages = dict(oneapi["required"])
    for component in wanted:
        packages.update(known[component])
    return {"root": oneapi["root"], "packages": packages}


def _python(name: str, python: dict[str, Any], engine: str, device: str) -> dict[str, Any]:
    environment = ENVIRONMENT_OF_ENGINE.get(engine, f"{engine}-{device}")
    environments = python["environments"]
    if environment not in environments:
        raise StackError(
            f"Stack {name} has no Python environment for engine {engine} on {device} "
            f"(it has {', '.join(sorted(environments))}); set xpu_engine or xpu_device."
        )
    return {
        "provider": python["provider"],
        "miniconda": python.get("miniconda", {}),
        "channel": python.get("channel", ""),
        "requirements": environment,
        **environments[environment],
    }


def _with_codename(repository: dict[str, Any], node: NodeFacts) -> dict[str, Any]:
    suites = [suite.replace("{codename}", node.codename) for suite in repository["suites"]]
    return {**repository, "suites": suites}
