"""Which roles site.yml has to run: chosen layers that drifted, and layers that build on them."""

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
    """Return the layers chosen by ``--tags`` and ``--skip-tags``, with the layers that they need.

    A layer that needs a skipped layer is skipped too. The platform has no role and belongs
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
    """Return the chosen layers whose roles have to run.

    These include layers that were not checked or are unknown. Layers that were not chosen are ignored. The platform
    can be one of them: it has no role, but its faults are reported, and repaired where possible.
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
    """Return a line for each of these layers: its faults, or the layer that it follows."""
    known = admitted_layers(layers, NAMES)
    return [f"{name}: {_reason(known.get(name, {}))}" for name in due]


def _reason(layer: Mapping[str, Any]) -> str:
    said = lines(layer)
    if not said:
        return one_line(layer.get("reason", "")) or "follows a layer that changes"
    more = f" (and {len(said) - SHOWN} more)" if len(said) > SHOWN else ""
    return "; ".join(said[:SHOWN]) + more
