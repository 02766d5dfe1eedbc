"""Filters of playbooks/audit.yml and the roles' expectations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.before import trend
from ansible_collections.xpu.fleet.plugins.module_utils.audit.due import chosen_layers, due_layers, reasons
from ansible_collections.xpu.fleet.plugins.module_utils.audit.fleet import fleet_report
from ansible_collections.xpu.fleet.plugins.module_utils.audit.junit import junit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.plan import fleet_plan
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.python_environment import requirement_lines
from ansible_collections.xpu.fleet.plugins.module_utils.stack.packages import driver_packages
from ansible_collections.xpu.fleet.plugins.plugin_utils.audit_files import audit_files
from ansible_collections.xpu.fleet.plugins.plugin_utils.audit_page import page
from ansible_collections.xpu.fleet.plugins.plugin_utils.copying import file_listing


def pins(requirements: str) -> str:
    """Return the lines of a requirements file without their hashes, which an installation does not keep."""
    return "".join(f"{line}\n" for line in requirement_lines(requirements))


def file_expectations(source: str, destination: str) -> dict[str, dict[str, Any]]:
    """Return an audit's expectation of files that are copied from one directory to another on the node: their sizes."""
    root = Path(source)
    return {
        f"{destination}/{path.relative_to(root)}": {"size": path.stat().st_size}
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


class FilterModule:
    """The filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        """Return them."""
        return {
            "driver_packages": driver_packages,
            "pins": pins,
            "file_listing": file_listing,
            "file_expectations": file_expectations,
            "audit_files": audit_files,
            "audit_report": fleet_report,
            "audit_plan": fleet_plan,
            "audit_trend": trend,
            "audit_page": page,
            "audit_junit": junit,
            "audit_chosen": chosen_layers,
            "audit_due": due_layers,
            "audit_reasons": reasons,
        }
