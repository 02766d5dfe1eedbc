"""Ends ansible-playbook with the status of an audit: 0 in order, 1 drift, 2 something could not be looked at."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = r"""
name: audit_status
type: aggregate
short_description: Exit status of playbooks/audit.yml
version_added: "0.2.0"
description:
  - Ends C(ansible-playbook) with 1 where a node has drifted, and with 2 where one could not be looked at. Without it
    Ansible's own status is 2 for both.
  - Plays that are no audit end as ever.
requirements:
  - C(callbacks_enabled = xpu.fleet.audit_status) in C(ansible.cfg)
"""


class CallbackModule(CallbackBase):
    """Reads what the playbook set with set_stats."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "xpu.fleet.audit_status"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_stats(self, stats: Any) -> None:
        """End here, after the last play."""
        status = stats.custom.get("_run", {}).get("xpu_audit_exit")
        if status:
            raise SystemExit(int(status))
