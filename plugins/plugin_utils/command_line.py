"""Arguments of ansible-playbook with which a playbook of the collection would do nothing, or fail in its middle."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.due import chosen_layers
from ansible_collections.xpu.fleet.plugins.module_utils.layers import PLATFORM
from ansible_collections.xpu.fleet.plugins.plugin_utils.inventory_files import inventory_problem

COLLECTION = Path(__file__).resolve().parents[2]
#: Tags with a special meaning in Ansible.
_SPECIAL = {"all", "tagged", "untagged", "always", "never"}


def problem(arguments: Mapping[str, Any], tags: Sequence[str]) -> str:
    """Return why a playbook with these tags cannot run with these arguments, "" if it can."""
    playbooks = list(arguments.get("args") or ())
    if not playbooks or not all(map(_is_ours, playbooks)):
        return ""
    # Commands that only show a playbook, as linters do, need no inventory.
    shows = any(arguments.get(option) for option in ("syntax", "listtags", "listtasks"))
    return (
        _halfway(arguments)
        or _tags(list(arguments.get("tags") or ()), list(arguments.get("skip_tags") or ()), tags)
        or ("" if shows else inventory_problem(arguments.get("inventory") or ()))
    )


def _is_ours(playbook: str) -> bool:
    if playbook.startswith("xpu.fleet."):
        return True
    path = Path(playbook).resolve()
    return path.parent in (COLLECTION, COLLECTION / "playbooks")


def _halfway(arguments: Mapping[str, Any]) -> str:
    wanted = [option for option in ("start_at_task", "step") if arguments.get(option)]
    if not wanted:
        return ""
    options = " and ".join(f"--{option.replace('_', '-')}" for option in wanted)
    return (
        f"{options} cannot be used here: tasks need the results of earlier tasks. A run does only what a node lacks, "
        "so run it again; --tags selects layers, --check changes nothing."
    )


def _tags(run: Sequence[str], skip: Sequence[str], known: Sequence[str]) -> str:
    if not known:
        asked = [tag for tag in (*run, *skip) if tag not in _SPECIAL]
        return f"This playbook has no tags: leave out {', '.join(asked)}." if asked else ""
    there = f"Tags: {', '.join(known)}."
    for option, tags in (("--tags", run), ("--skip-tags", skip)):
        strange = [tag for tag in tags if tag not in known and tag not in _SPECIAL]
        if strange:
            close = difflib.get_close_matches(strange[0], known, n=1)
            hint = f" Did you mean {close[0]}?" if close else ""
            return f"{option} {','.join(strange)}: unknown tag.{hint} {there}"
    # The platform belongs to every choice.
    chosen = {*chosen_layers(run, skip)} & {*known} - ({PLATFORM} - {*run})
    if chosen and "always" not in skip:
        return ""
    options = {"--tags": [tag for tag in run if tag != "all"], "--skip-tags": skip}
    asked = [f"{name} {','.join(of)}" for name, of in options.items() if of]
    return f"{' '.join(asked)} chooses nothing. {there}"
