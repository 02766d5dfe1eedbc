"""Ends ansible-playbook with the status of an audit: 0 in order, 1 drift, 2 something was not checked."""

from __future__ import annotations

DOCUMENTATION = r"""
name: audit_status
type: aggregate
short_description: Exit status of playbooks/audit.yml
version_added: "1.0.0"
description:
  - Ends C(ansible-playbook) with 1 where a node has drifted, and with 2 where one could not be looked at, or there was
    none to look at. Without it Ansible's own status is 2 for the first two, and 0 for the last.
  - Ends C(playbooks/plan.yml) likewise - 1 if nodes need a change.
  - Plays that are no audit end as ever.
requirements:
  - C(callbacks_enabled = xpu.fleet.audit_status) in C(ansible.cfg)
"""

from typing import Any

from ansible.plugins.callback import CallbackBase

#: The variable that marks a play as an audit: one that reports no status has checked nothing.
MARK = "audit_tells_its_status"


class CallbackModule(CallbackBase):
    """Reads what the playbook set with set_stats."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "xpu.fleet.audit_status"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, display: Any = None) -> None:
        """No play has begun yet."""
        super().__init__(display=display)
        self._audit = False
        self._hosts = True

    def v2_playbook_on_play_start(self, play: Any) -> None:
        """Note whether this play is an audit."""
        self._audit = self._audit or bool(play.get_vars().get(MARK))

    def v2_playbook_on_no_hosts_matched(self) -> None:
        """Note why there will be no status."""
        self._hosts = False

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """End here, after the last play."""
        status = stats.custom.get("_run", {}).get("xpu_audit_exit")
        if status is None and self._audit:
            why = "it stopped before its end" if self._hosts else "no host matches (xpu_hosts, the inventory)"
            self._display.error(f"The audit has no result: {why}.", wrap_text=False)
            status = 2
        if status:
            raise SystemExit(int(status))
