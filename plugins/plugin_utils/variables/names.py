"""Misspelt names of the collection's variables, which Ansible would silently ignore."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Iterable, Sequence

from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import (
    INTERNAL,
    fleet_options,
    role_options,
    roles,
)

#: Words one letter from the beginning of a variable of the collection, with which other names begin.
OTHER_WORDS = ("cpu_", "dpu_", "gpu_", "npu_", "tpu_", "vpu_", "slack_")
#: Shorter names differ in one letter by chance.
_SHORTEST = 5


@functools.cache
def public() -> frozenset[str]:
    """Return every variable for people to set."""
    return frozenset({*role_options(), *fleet_options()})


@functools.cache
def prefixes() -> tuple[str, ...]:
    """Return the prefixes of the collection's names."""
    return ("xpu_", *(f"{role}_" for role in roles()))


def unknown(names: Iterable[str], others: Sequence[str] = ()) -> dict[str, list[str]]:
    """Return misspelt names, each with the nearest variables of the collection.

    These begin like the collection's names, or are a letter away from one. ``others`` are the operator's own names,
    or patterns of names (``kernel_mine_*``).
    """
    found = {}
    for name in names:
        if name.startswith(("ansible_", "__")) or name in public() or name in INTERNAL:
            continue
        if not _plain(name).startswith(prefixes()) and not _is_slip(name):
            continue
        if not any(fnmatch.fnmatchcase(name, pattern) for pattern in others):
            found[name] = nearest(name)
    return found


def nearest(name: str) -> list[str]:
    """Return the variables that need the fewest changes to get from ``name`` to them."""
    far = {known: distance(_plain(name), known) for known in _letter_apart(name) or public()}
    return sorted(known for known in far if far[known] == min(far.values()))


def distance(first: str, second: str) -> int:
    """Return how many letters differ: an insertion, removal, replacement, or swap with the next counts as one."""
    before: list[int] = []
    row = list(range(len(second) + 1))
    for i, letter in enumerate(first, 1):
        earlier, before, row = before, row, [i]
        for j, other in enumerate(second, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == second[j - 2] and first[i - 2] == other:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _is_slip(name: str) -> bool:
    """Return whether a name with another prefix is one letter from a variable, and no word of other things."""
    if len(name) < _SHORTEST:
        return False
    meant = _letter_apart(name)
    if name.startswith(OTHER_WORDS):
        meant = {known for known in meant if known.startswith(name.partition("_")[0])}
    return bool(meant)


def _letter_apart(name: str) -> set[str]:
    shortened = _shortened()
    candidates = {known for part in _deletions(name) for known in shortened.get(part, ())}
    return {known for known in candidates if distance(name, known) == 1}


@functools.cache
def _shortened() -> dict[str, set[str]]:
    """Return every name, whole and with each letter left out: two names one letter apart meet here."""
    found: dict[str, set[str]] = {}
    for name in public():
        for part in _deletions(name):
            found.setdefault(part, set()).add(name)
    return found


def _deletions(name: str) -> set[str]:
    return {name, *(name[:i] + name[i + 1 :] for i in range(len(name)))}
