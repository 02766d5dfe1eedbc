"""Which roles a run of site.yml needs: the layers that are chosen and not in order, and those that build on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.door import admitted_layers
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import NOT_APPLICABLE, OK, lines
from ansible_collections.xpu.fleet.plugins.module_utils.layers import LAYERS, NAMES, PLATFORM
from ansible_collections.xpu.fleet.plugins.module_utils.plain import one_line

#: How many findings of a layer are shown; the audit shows all.
SHOWN = 2


def chosen_layers(run_tags: Iterable[str], skip_tags: Iterable[str] = ()) -> list[str]:
    """Return the layers that ``--tags`` and ``--skip-tags`` leave, with those that they do not run without.

    A layer that does not run without one that is skipped goes with it. What the node itself is has no role and belongs
    to every choice.
    """
    run, skip = set(run_tags), set(skip_tags)
    chosen = {name for name in NAMES if run & {name, "all", "tagged"} and not skip & {name, "all", "tagged"}}
    chosen -= {layer.name for layer in LAYERS if skip.intersection(layer.runs_with)}
    for layer in LAYERS:
        if layer.name in chosen:
            chosen.update(layer.runs_with)
    return [name for name in NAMES if name in chosen or name == PLATFORM]


def due_layers(layers: Mapping[str, Any], chosen: Iterable[str]) -> list[str]:
    """Return the chosen layers for which something has to be done: their roles have to run.

    A chosen layer that was not looked at, or of which nothing is known, is one of them; of others nothing is asked. The
    platform is one as well: it has no role, but what is wrong there has to be said, and mended where that can be.
    """
    chosen, due, layers = list(chosen), set[str](), admitted_layers(layers, NAMES)
    for layer in (layer for layer in LAYERS if layer.name in chosen):
        status = layers.get(layer.name, {}).get("status")
        if status != NOT_APPLICABLE and (status != OK or due.intersection(layer.builds_on)):
            due.add(layer.name)
    for layer in LAYERS:
        if layer.name in due:
            due.update(layer.runs_with)
    return [name for name in chosen if name in due]


def reasons(layers: Mapping[str, Any], due: Iterable[str]) -> list[str]:
    """Return a line for each of these layers: what is not in order there, or that it follows another."""
    known = admitted_layers(layers, NAMES)
    return [f"{name}: {_reason(known.get(name, {}))}" for name in due]


def _reason(layer: Mapping[str, Any]) -> str:
    said = lines(layer)
    if not said:
        return one_line(layer.get("reason", "")) or "follows a layer that changes"
    more = f" (and {len(said) - SHOWN} more)" if len(said) > SHOWN else ""
    return "; ".join(said[:SHOWN]) + more
