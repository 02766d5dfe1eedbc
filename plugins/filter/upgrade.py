"""Filters of playbooks/upgrade.yml."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils import upgrade
from ansible_collections.xpu.fleet.plugins.plugin_utils import controller


def upgrade_owner(purpose: str) -> dict[str, str]:
    """Return the content of this run's lock."""
    return controller.owner(purpose)


def upgrade_lock(results: Sequence[Mapping[str, Any]], mine: Mapping[str, str], take_over: bool) -> dict[str, Any]:
    """Return whose lock may be taken over, from the results of fleet_lock in a loop over hosts."""
    found = {result["item"]: result["found"] for result in results}
    return upgrade.lock_verdict(found, mine, controller.has_ended, take_over)


class FilterModule:
    """For Ansible."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return the filters by name."""
        return {
            "upgrade_plan": upgrade.plan,
            "upgrade_owner": upgrade_owner,
            "upgrade_lock": upgrade_lock,
            "upgrade_stop": upgrade.stop_reason,
            "upgrade_summary": upgrade.summary,
        }
