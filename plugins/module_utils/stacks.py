"""Choose the stack of a node and work out everything that the roles read of it.

A stack is one tested combination of kernel, drivers, oneAPI, Python and engine, written as data in
``roles/stack/vars/<name>.yml``. This module is the only reader of that data.
"""

from __future__ import annotations

import copy
import difflib
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import kind

AUTO = "auto"
DEVICES = ("gpu", "cpu")
DKMS = ("auto", "always", "never")
#: What part of the published speed an engine reaches that is well: drivers and formats differ. A GPU that throttles, or
#: a model that runs on the CPU unseen, is further off.
SUSPICIOUS = 0.25
#: Python environments are named after engine and device where the device changes what is installed; OpenVINO's
#: wheels carry every device.
ENVIRONMENT_OF_ENGINE = {"openvino": "openvino"}

_WORDS = {str: "a string", int: "a whole number"}
_TEXT = str
_STRINGS = [str]
_VERSIONS = {"*": str}
_REPOSITORY: dict[str, Any] = {
    "uris": _STRINGS,
    "suites": _STRINGS,
    "components": _STRINGS,
    "architectures": _STRINGS,
    "key_url": _TEXT,
    "fingerprints": _STRINGS,
    "keyring": _TEXT,
    "sources": _TEXT,
    "superseded": _STRINGS,
}
_REPOSITORIES = {"graphics": _REPOSITORY, "oneapi": _REPOSITORY}
#: The shape of a stack: a type, a list of one type, or a mapping; "*" stands for any key.
SCHEMA: dict[str, Any] = {
    "title": _TEXT,
    "families": _STRINGS,
    "distributions": [{"name": str, "release": str}],
    "minimum_kernel": _TEXT,
    "engines": _STRINGS,
    "model": _TEXT,
    "low_bit": _TEXT,
    #: Tokens per second that are published for that model, by family of GPUs.
    "published_speed": {"*": int},
    "repositories": _REPOSITORIES,
    "optional_repositories": _REPOSITORIES,
    "kernel": {"release": _TEXT, "packages": _VERSIONS, "metapackages": _STRINGS},
    "driver": {
        "module": _TEXT,
        "build_tools": _STRINGS,
        "dkms": [{"package": str, "version": str, "module": str}],
        "firmware": _VERSIONS,
        "packages": _VERSIONS,
        "diagnostics": _STRINGS,
    },
    "oneapi": {"root": _TEXT, "required": _VERSIONS, "components": {"*": _VERSIONS}},
    "environment": {"*": _VERSIONS},
    "python": {
        "provider": _TEXT,
        "miniconda": {"url": _TEXT, "sha256": _TEXT},
        "channel": _TEXT,
        "environments": {"*": {"version": _TEXT, "find_links": _STRINGS, "unhashed": _STRINGS}},
    },
}


class StackError(Exception):
    """A node, a stack or an override that does not work, in words for the operator."""


@dataclass(frozen=True)
class Node:
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
    def system(self) -> str:
        """Name and release of the distribution."""
        return f"{self.distribution} {self.release}"

    def describe_gpus(self) -> str:
        """The GPUs with their PCI ids, for messages."""
        return ", ".join(map(_described, self.gpus)) or "none"


@dataclass(frozen=True)
class Wish:
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


def resolve(definitions: dict[str, dict[str, Any]], node: Node, wish: Wish) -> dict[str, Any]:
    """Return the resolved stack of ``node``; raises StackError with one message that says what to change."""
    for name, definition in definitions.items():
        check_shape(definition, name)
    name = _choose(definitions, node, wish.stack)
    stack = merge(definitions[name], wish.overrides, "xpu_stack_overrides")
    dkms = _builds_modules(stack, node, wish.dkms)
    _check_node(name, stack, node, dkms)
    if wish.ppa:
        if not stack.get("optional_repositories"):
            raise StackError(f"stack_ppa is set, but stack {name} offers no optional repository; unset stack_ppa.")
        stack["repositories"] = {**stack["optional_repositories"], **stack["repositories"]}
    family = node.gpus[0]["family"] if node.gpus and stack["families"] else "none"
    engine = _choose_engine(name, stack, wish.engine)
    device = _choose_device(family, wish.device, node)
    return {
        "name": name,
        "title": stack["title"],
        "family": family,
        "gpus": node.gpus if family != "none" else [],
        "lost": _missed(node, wish) if family != "none" else [],
        "container": node.container,
        "engine": engine,
        "device": device,
        "dkms": dkms,
        "repositories": {key: _with_codename(value, node) for key, value in stack["repositories"].items()},
        "kernel": stack["kernel"],
        "driver": stack["driver"],
        "oneapi": _oneapi(name, stack["oneapi"], wish.oneapi_components),
        "environment": {**stack["environment"].get("all", {}), **stack["environment"].get(family, {})},
        "python": _python(name, stack["python"], engine, device),
        "model": stack["model"],
        "low_bit": stack["low_bit"],
        "least_speed": stack.get("published_speed", {}).get(family, 0) * SUSPICIOUS if device == "gpu" else 0,
    }


def pinned_packages(resolved: dict[str, Any]) -> dict[str, str]:
    """Every package that the roles will install for ``resolved``, with its exact version or ""."""
    driver = resolved["driver"]
    packages: dict[str, str] = {}
    kernel = resolved["kernel"].get("packages", {})
    if not resolved["container"]:
        packages.update(kernel)
    elif resolved["dkms"]:
        packages.update({name: version for name, version in kernel.items() if name.startswith("linux-headers-")})
    if driver:
        packages.update(driver["packages"])
        packages.update(dict.fromkeys(driver["diagnostics"], ""))
        packages.update(driver["firmware"])
        if resolved["dkms"]:
            packages.update(dict.fromkeys(driver["build_tools"], ""))
            packages.update({entry["package"]: entry["version"] for entry in driver["dkms"]})
    packages.update(resolved["oneapi"].get("packages", {}))
    return packages


def merge(base: dict[str, Any], overrides: dict[str, Any], where: str) -> dict[str, Any]:
    """Return ``base`` with ``overrides`` laid over it, key by key; lists are replaced whole.

    Raises StackError for a key that no stack has or a value of another type, naming its place.
    """
    check_shape(overrides, where)
    merged = copy.deepcopy(base)
    _lay_over(merged, overrides)
    return merged


def check_shape(value: Any, where: str, schema: Any = None) -> None:
    """Raise StackError where ``value`` is not of the shape of a stack."""
    schema = SCHEMA if schema is None else schema
    if isinstance(schema, dict):
        if not isinstance(value, dict):
            raise StackError(f"{where} must be a mapping, but is {kind(value)}.")
        for key, part in value.items():
            if key not in schema and "*" not in schema:
                close = difflib.get_close_matches(str(key), list(schema), n=1)
                hint = f"Did you mean {close[0]}?" if close else f"Known keys: {', '.join(sorted(schema))}."
                raise StackError(f"{where}.{key} is not part of a stack. {hint}")
            check_shape(part, f"{where}.{key}", schema.get(key, schema.get("*")))
    elif isinstance(schema, list):
        if not isinstance(value, list):
            raise StackError(f"{where} must be a list, but is {kind(value)}.")
        for index, item in enumerate(value):
            check_shape(item, f"{where}[{index}]", schema[0])
    elif not isinstance(value, schema) or isinstance(value, bool):
        hint = "; put it in quotes" if schema is str else ""
        raise StackError(f"{where} must be {_WORDS[schema]}, but is {kind(value)} ({value!r}){hint}.")


def _lay_over(base: dict[str, Any], overrides: dict[str, Any]) -> None:
    for key, value in overrides.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = copy.deepcopy(value)


def _missed(node: Node, wish: Wish) -> list[dict[str, str]]:
    missed = [gpu for gpu in node.lost if gpu["address"] not in wish.lost_gpus]
    return [{"address": gpu["address"], "id": gpu.get("id", "")} for gpu in missed]


def _described(gpu: dict[str, Any]) -> str:
    return f"{gpu['name']} ({gpu['id']}) at {gpu['address']}" if "id" in gpu else f"a GPU at {gpu['address']}"


def _choose(definitions: dict[str, dict[str, Any]], node: Node, wanted: str) -> str:
    if wanted != AUTO:
        if wanted not in definitions:
            raise StackError(
                f"xpu_stack is {wanted!r}, and there is no such stack. Known stacks: "
                f"{', '.join([AUTO, *sorted(definitions)])}."
            )
        reason = _misfit(definitions[wanted], node)
        if reason:
            raise StackError(
                f"Stack {wanted} does not fit this node: {reason}. GPUs found: {node.describe_gpus()}. "
                f"Distribution: {node.system}. Set xpu_stack to auto or to a stack that fits."
            )
        return wanted
    if node.lost and not node.gpus:
        raise StackError(
            f"This node had {', '.join(map(_described, node.lost))}, and now there is no GPU: it is not served on its "
            "CPU without your word. Look at the card and at dmesg; where it is gone for good, set xpu_stack to cpu."
        )
    tried = []
    for name in sorted(definitions):
        definition = definitions[name]
        # A node with GPUs is never quietly served on its CPU: that stack must be named.
        if bool(node.gpus) != bool(definition["families"]):
            reason = "it serves nodes without GPUs" if node.gpus else "it serves nodes with GPUs"
        else:
            reason = _misfit(definition, node)
        if not reason:
            return name
        tried.append(f"{name} ({reason})")
    raise StackError(
        f"No stack fits this node. GPUs found: {node.describe_gpus()}. Distribution: {node.system}. "
        f"Tried: {'; '.join(tried)}. Install a distribution that a stack serves, or name a stack with xpu_stack."
    )


def _misfit(definition: dict[str, Any], node: Node) -> str:
    """Why a stack cannot serve a node; "" where it can."""
    served = [f"{entry['name']} {entry['release']}" for entry in definition["distributions"]]
    if node.system not in served:
        return f"it serves {', '.join(served)}"
    if not definition["families"]:
        return ""
    families = {gpu["family"] for gpu in node.gpus}
    if not families:
        return f"it serves GPUs of family {', '.join(definition['families'])} and none was found"
    others = sorted(families - set(definition["families"]))
    if others:
        return f"it serves GPUs of family {', '.join(definition['families'])}, not {', '.join(others)}"
    return ""


def _check_node(name: str, stack: dict[str, Any], node: Node, dkms: bool) -> None:
    if node.architecture != "x86_64":
        raise StackError(f"This node is {node.architecture}; Intel's GPU stack is for x86_64 only.")
    if len({gpu["family"] for gpu in node.gpus}) > 1 and stack["families"]:
        raise StackError(
            f"This node mixes GPU families ({node.describe_gpus()}), whose settings differ; keep one family in a node."
        )
    minimum = stack.get("minimum_kernel", "")
    if minimum and _release(node.kernel) < _release(minimum):
        raise StackError(
            f"Stack {name} needs kernel {minimum} or newer and this node runs {node.kernel}; upgrade its kernel first."
        )
    if node.secure_boot and dkms and not node.container:
        raise StackError(
            f"Secure Boot is on, and it refuses the unsigned kernel modules that DKMS builds for stack {name}. "
            "Turn Secure Boot off in the firmware, or use stack native, whose driver the distribution has signed."
        )


def _release(kernel: str) -> tuple[int, ...]:
    return tuple(int(part) for part in kernel.split("-", maxsplit=1)[0].split(".")[:2] if part.isdigit())


def _choose_engine(name: str, stack: dict[str, Any], wanted: str) -> str:
    engines: list[str] = stack["engines"]
    if wanted and wanted not in engines:
        raise StackError(f"xpu_engine is {wanted!r}; stack {name} runs {', '.join(engines)}.")
    return wanted or engines[0]


def _choose_device(family: str, wanted: str, node: Node) -> str:
    if wanted and wanted not in DEVICES:
        raise StackError(f"xpu_device is {wanted!r}; it must be {' or '.join(DEVICES)}.")
    if wanted == "gpu" and family == "none":
        raise StackError(
            f"xpu_device is gpu, but the stack of this node uses no GPU (GPUs found: {node.describe_gpus()})."
        )
    return wanted or ("cpu" if family == "none" else "gpu")


def _builds_modules(stack: dict[str, Any], node: Node, wanted: str) -> bool:
    """Whether DKMS modules are built: by default where the kernel is the node's own."""
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


def _with_codename(repository: dict[str, Any], node: Node) -> dict[str, Any]:
    suites = [suite.replace("{codename}", node.codename) for suite in repository["suites"]]
    return {**repository, "suites": suites}
