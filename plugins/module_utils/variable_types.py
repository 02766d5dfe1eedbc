"""Check variables against the types in a role's argument specification.

Ansible's own validation converts while it checks (a number becomes a string, a string a list of one), but the role
then uses the original value. Here a variable needs the declared type, or is a string that expresses a value of it, as
INI inventories and ``-e name=value`` have only strings; roles convert such strings when they read them.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping
from typing import Any, Optional

#: Known facts with such names: the ones that playbooks/gpus.yml stores on a node, and one of Ansible's.
_OWN_FACTS = ("xpu_gpus", "xpu_gpu_families", "kernel_version")
_ARTICLES = {
    "str": "a string",
    "path": "a string",
    "list": "a list",
    "dict": "a mapping",
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
}
_NUMBERS: dict[str, tuple[Any, str]] = {"int": (int, r"-?\d+"), "float": ((int, float), r"-?\d+(\.\d+)?")}
#: Strings that Ansible's filter ``bool`` accepts as true, and the usual ones for false.
_BOOLEANS = ("true", "yes", "on", "1", "false", "no", "off", "0")


def problems(options: Mapping[str, Mapping[str, Any]], values: Mapping[str, Any]) -> list[str]:
    """One sentence for every variable of ``values`` that differs from its declaration, without secret values."""
    found = []
    for name, option in options.items():
        if name in values:
            found += _problems(name, option, values[name])
    return found


def foreign_facts(facts: Iterable[Any], roles: Iterable[str]) -> list[str]:
    """One sentence for facts by which a node would set variables of these roles, or of the fleet.

    If Ansible turns facts into variables (``inject_facts_as_vars``, its default), they override roles' defaults.
    """
    prefixes = ("xpu_", "audit_", *(f"{role}_" for role in roles))
    names = sorted(
        name for name in facts if isinstance(name, str) and name.startswith(prefixes) and name not in _OWN_FACTS
    )
    return [f"The node returns facts with names of your variables: {', '.join(names)[:200]}."] if names else []


def as_list(value: Any) -> Optional[list[Any]]:
    """Return a list for its notations: a list, ``"a,b"`` or ``"['a', 'b']"``; None for anything else."""
    if not isinstance(value, str):
        return list(value) if isinstance(value, (list, tuple)) else None
    if not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    try:
        literal = ast.literal_eval(value.strip())
    except (ValueError, SyntaxError):
        return None
    return list(literal) if isinstance(literal, list) else None


def _problems(name: str, option: Mapping[str, Any], value: Any) -> list[str]:
    wanted = option.get("type", "str")
    shown = "" if option.get("no_log") else f": {value!r}"
    choices = option.get("choices")
    if choices and value not in choices:
        named = ", ".join(str(choice) for choice in choices if choice != "")
        quotes = " (in YAML, quote yes, no, on and off)" if isinstance(value, bool) else ""
        return [f"{name} must be {'one of ' if len(choices) > 1 else ''}{named}, but is {kind(value)}{shown}{quotes}."]
    if not _fits(wanted, value):
        return [f"{name} must be {_ARTICLES.get(wanted, wanted)}, but is {kind(value)}{shown}."]
    if wanted == "list" and "elements" in option:
        secret = option.get("no_log", False)
        item = {"type": option["elements"], "options": option.get("options", {}), "no_log": secret}
        return [
            problem for i, part in enumerate(as_list(value) or []) for problem in _problems(f"{name}[{i}]", item, part)
        ]
    if wanted == "dict" and option.get("options"):
        return problems({f"{name}.{key}": part for key, part in option["options"].items()}, _prefixed(name, value))
    return []


def _prefixed(name: str, value: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{name}.{key}": part for key, part in value.items()}


def _fits(wanted: str, value: Any) -> bool:
    if isinstance(value, bool):
        return wanted in ("bool", "raw")
    if wanted in ("str", "path"):
        return isinstance(value, (str, int, float))
    if wanted == "bool":
        return isinstance(value, (str, int)) and str(value).lower() in _BOOLEANS
    if wanted in _NUMBERS:
        type_, pattern = _NUMBERS[wanted]
        return isinstance(value, type_) or (isinstance(value, str) and bool(re.fullmatch(pattern, value)))
    if wanted == "list":
        return as_list(value) is not None
    return wanted != "dict" or isinstance(value, dict)


def kind(value: Any) -> str:
    """The type of ``value`` in words; by isinstance, as Ansible passes its own subclasses."""
    names = {bool: "a boolean", dict: "a mapping", list: "a list", str: "a string", int: "a number", float: "a number"}
    return next((name for type_, name in names.items() if isinstance(value, type_)), "empty")
