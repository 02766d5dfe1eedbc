"""A rolling change of a fleet: its batches, its lock, when it stops, and its result."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.gateway import models
from ansible_collections.xpu.fleet.plugins.module_utils.plain import one_line

#: The share of a model's nodes that may be out at the same time.
MODEL_SHARE = "50%"


def plan(
    nodes: Sequence[str],
    variables: Mapping[str, Mapping[str, Any]],
    sizes: Sequence[Any],
    limits: Mapping[str, Any],
    groups: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the ``order`` of nodes, the sizes of their batches as ``serial``, and ``lines`` that describe it.

    Drained nodes come first, in a separate batch: nobody misses them. The first of the others is
    the canary. ``limits`` are groups with the number or share of their hosts that may be out at the same time; for the
    nodes of a model it is half, whatever the sizes are. ``problems`` are unknown groups.
    """
    out = [node for node in nodes if variables[node].get("upgrade_drained")]
    waiting = [node for node in nodes if node not in out]
    limited = [(list(groups.get(name, ())), _count(most, len(groups.get(name, ())))) for name, most in limits.items()]
    limited += [(of_model, _count(MODEL_SHARE, len(of_model))) for of_model in _by_model(variables).values()]
    batches, number = ([out] if out else []), 0
    while waiting:
        size = _count(sizes[min(number, len(sizes) - 1)], len(nodes))
        batch: list[str] = []
        for node in waiting:
            if len(batch) < size and all(
                node not in members or len({*batch} & {*members}) < most for members, most in limited
            ):
                batch.append(node)
        batches.append(batch)
        waiting = [node for node in waiting if node not in batch]
        number += 1
    lines = [f"{_name(index, bool(out))}: {', '.join(batch)}" for index, batch in enumerate(batches)]
    return {
        "order": [node for batch in batches for node in batch],
        "serial": [len(batch) for batch in batches],
        "lines": lines,
        "problems": [
            f"xpu_upgrade_limits names {name}, which is not a group." for name in limits if name not in groups
        ],
    }


def _name(index: int, drained: bool) -> str:
    if drained and not index:
        return "first, already drained"
    return "canary" if index == drained else f"batch {index + 1 - drained}"


def _count(entry: Any, of: int) -> int:
    """Return a number, or a share of ``of``; at least one."""
    text = str(entry)
    return max(1, of * int(text[:-1]) // 100 if text.endswith("%") else int(text))


def _by_model(variables: Mapping[str, Mapping[str, Any]]) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for node in variables:
        endpoints = variables[node].get("inference_endpoints")
        if endpoints:
            for model in models(endpoints).items():
                found.setdefault(model, []).append(node)
    return found


def lock_verdict(
    found: Mapping[str, Mapping[str, str]],
    mine: Mapping[str, str],
    has_ended: Callable[[Mapping[str, str]], bool],
    take_over: bool,
) -> dict[str, Any]:
    """Return which run's lock may be taken over on each host (``replaces``), ``problems`` and ``notes``.

    ``mine`` is empty for a run that takes none, and removes what it finds.
    """
    fate = "taken over" if mine else "removed"
    replaces, problems, notes = {}, dict[str, str](), dict[str, str]()
    for host, lock in found.items():
        replaces[host] = ""
        if not lock or lock["run"] == mine.get("run"):
            continue
        who = f"{one_line(lock['owner'])} on {one_line(lock['host'])} (process {one_line(lock['process'])})"
        what = f"{who} changes this fleet since {lock['since']}: {one_line(lock['purpose'])}"
        if take_over or has_ended(lock):
            replaces[host] = lock["run"]
            why = "that process has ended" if has_ended(lock) else "xpu_upgrade_take_over is set"
            notes[lock["run"]] = f"The lock of an interrupted run is {fate}: {what}. Now {why}."
        else:
            problems[lock["run"]] = (
                f"{what}; last seen at {lock['seen']}. Wait for its end. If that machine or process is gone, take the "
                "lock over with -e xpu_upgrade_take_over=true."
            )
    return {"replaces": replaces, "problems": list(problems.values()), "notes": list(notes.values())}


def failures(nodes: Sequence[str], variables: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return the unfinished nodes of finished batches, each with its reason."""
    return {
        node: one_line(variables[node].get("upgrade_failed") or "no longer reached", 600)
        for node in nodes
        if not variables[node].get("upgrade_done")
    }


def stop_reason(
    earlier: Sequence[str], all_nodes: Sequence[str], variables: Mapping[str, Mapping[str, Any]], most: float
) -> str:
    """Return why no further batch begins, "" if one does: more than that percentage of all nodes failed.

    Nodes that were out after an earlier failure do not count.
    """
    failed = [node for node in failures(earlier, variables) if not variables[node].get("upgrade_failed_before")]
    if not failed or 100 * len(failed) / len(all_nodes) <= most:
        return ""
    left = [node for node in all_nodes if node not in earlier]
    why = f"{', '.join(failed)} failed (xpu_upgrade_max_fail_percentage is {most:g})."
    return f"{why} Not changed: {', '.join(left)}."


def summary(nodes: Sequence[str], begun: Collection[str], variables: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the result of a run: the nodes that are ``done``, those that ``failed`` with reasons, and ``lines``."""
    failed = failures([node for node in nodes if node in begun], variables)
    lines = []
    for node in nodes:
        if node in failed:
            out = "it stays drained" if variables[node].get("upgrade_out") else "it serves as before"
            lines.append(f"{node}: failed, {out}: {failed[node]}")
        else:
            lines.append(f"{node}: {'done' if node in begun else 'left as it is'}")
    return {"done": [node for node in nodes if node in begun and node not in failed], "failed": failed, "lines": lines}
