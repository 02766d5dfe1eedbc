"""The data of stacks: its shape, an operator's overrides, and variants by system."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Collection
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError
from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import kind

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
    "former": _STRINGS,
}
_REPOSITORIES = {"graphics": _REPOSITORY, "oneapi": _REPOSITORY}
#: The shape of a stack: a type, a list of one type, or a mapping; "*" stands for any key.
SCHEMA: dict[str, Any] = {
    "title": _TEXT,
    "families": _STRINGS,
    "distributions": [{"name": str, "release": str}],
    #: The oldest kernels, each with its source: confidence H is required, M only warns.
    "minimum_kernels": [
        {"devices": _STRINGS, "releases": _STRINGS, "kernel": _TEXT, "confidence": _TEXT, "source": _TEXT}
    ],
    "unsupported": [{"devices": _STRINGS, "reason": _TEXT, "confidence": _TEXT, "source": _TEXT}],
    "engines": _STRINGS,
    "model": _TEXT,
    "low_bit": _TEXT,
    #: Published tokens per second of that model, by family of GPUs.
    "published_speed": {"*": int},
    "repositories": _REPOSITORIES,
    "optional_repositories": _REPOSITORIES,
    #: Either one release, with its packages and the metapackages that would install others; or any release from
    #: ``at_least`` on and before ``before``: ``metapackage`` installs one if the running kernel is not in the range.
    "kernel": {
        "release": _TEXT,
        "packages": _VERSIONS,
        "metapackages": _STRINGS,
        "at_least": _TEXT,
        "before": _TEXT,
        "metapackage": _TEXT,
    },
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
        "environments": {
            "*": {
                "version": _TEXT,
                "find_links": _STRINGS,
                "unhashed": _STRINGS,
                #: The channel's build for this Python, and its SHA-256 in the channel's index.
                "conda": {"version": _TEXT, "build": _TEXT, "sha256": _TEXT},
            }
        },
    },
    #: The evidence that the stack works, for the table of the README.
    "evidence": [{"families": _STRINGS, "releases": _STRINGS, "how": _TEXT, "source": _TEXT}],
}
#: Variants by family and release of the distribution; without "families" or "releases" they apply to all.
SCHEMA["variants"] = [{"families": _STRINGS, "releases": _STRINGS, "set": dict(SCHEMA)}]


class StackError(FleetError):
    """A node, a stack or an override that does not work; the message is for the operator."""


def merge(base: dict[str, Any], overrides: dict[str, Any], where: str) -> dict[str, Any]:
    """Return ``base`` merged with ``overrides``, key by key; lists are replaced whole.

    Raises StackError for an unknown key or a value of another type, naming its place.
    """
    check_shape(overrides, where)
    merged = copy.deepcopy(base)
    _lay_over(merged, overrides)
    return merged


def check_shape(value: Any, where: str, schema: Any = None) -> None:
    """Raise StackError if ``value`` does not have the shape of a stack."""
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


def varied(definition: dict[str, Any], families: Collection[str], release: str) -> dict[str, Any]:
    """Return a stack's data merged with its variants for these families of GPUs and this release."""
    stack = copy.deepcopy({key: value for key, value in definition.items() if key != "variants"})
    for variant in definition.get("variants", ()):
        if applies(variant, families, release):
            _lay_over(stack, variant["set"])
    return stack


def applies(entry: dict[str, Any], families: Collection[str], release: str) -> bool:
    """Tell whether an entry is for these families and this release; one without them is for all."""
    wanted = entry.get("families")
    return (wanted is None or bool(set(wanted).intersection(families))) and release in entry.get("releases", [release])
