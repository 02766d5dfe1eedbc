"""Every variable of the collection: from the roles' argument specifications, and from the playbooks."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

COLLECTION = Path(__file__).resolve().parents[3]
#: Internal variables: people can see these names (in templates, in ``-v``), but do not set them.
INTERNAL = frozenset(
    {
        *("stack_resolved", "stack_definition", "model_resolved"),
        *("model_catalogue", "model_engines", "model_bits_per_weight"),
        *("stack_expected", "graphics_repository_expected", "kernel_expected", "gpu_driver_expected"),
        *("render_access_expected", "oneapi_expected", "python_runtime_expected", "model_expected"),
        *(
            "kernel_target",
            "inference_expected",
            "inference_audit_prompt",
            "inference_endpoints",
            "inference_serving",
            "pinned_packages_changed",
        ),
        *("node_reboot_count", "xpu_due", "xpu_done", "xpu_audit", "xpu_gpus", "xpu_gpu_families"),
    }
)
_FALLS_BACK = re.compile(r"\{\{ (xpu_\w+) \| default\(")


def read(path: Path) -> Any:
    """Return the content of a YAML file of the collection."""
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506


@functools.cache
def entry_points(role: str) -> dict[str, dict[str, Any]]:
    """Return the options of each entry point of a role; the role's defaults give their fallbacks."""
    specs = read(COLLECTION / "roles" / role / "meta/argument_specs.yml")["argument_specs"]
    defaults = read(COLLECTION / "roles" / role / "defaults/main.yml") or {}
    return {
        entry: {
            name: {**option, "default": defaults.get(name, option.get("default"))}
            for name, option in (spec.get("options") or {}).items()
        }
        for entry, spec in specs.items()
    }


@functools.cache
def roles() -> tuple[str, ...]:
    """Return the names of the collection's roles."""
    return tuple(sorted(path.name for path in (COLLECTION / "roles").iterdir() if (path / "meta").is_dir()))


@functools.cache
def role_options() -> dict[str, dict[str, Any]]:
    """Return the options of all roles and entry points."""
    return {
        name: option for role in roles() for options in entry_points(role).values() for name, option in options.items()
    }


@functools.cache
def fleet_options() -> dict[str, dict[str, Any]]:
    """Return the variables that begin with ``xpu_``.

    A role's option that falls back to one describes it, and is its ``same_as``.
    """
    options: dict[str, dict[str, Any]] = dict(read(Path(__file__).with_name("fleet.yml")))
    for role_option, option in role_options().items():
        if (name := fallback(option)) and name not in options:
            options[name] = {**option, "same_as": role_option}
    return options


def fallback(option: dict[str, Any]) -> str:
    """Return the fleet's variable that is an option's default, "" without one."""
    found = _FALLS_BACK.match(str(option.get("default", "")))
    return found[1] if found else ""


def options_of(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Return the options of these roles' entry point ``main``."""
    return {name: option for role in names for name, option in entry_points(role)["main"].items()}
