"""Layer python: the engine's environment has exactly the stack's pins, and its interpreter runs."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import Report
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.python_environment import Wanted, read_state


class PythonAudit(LayerAudit):
    """Compares the environment as module python_environment does: every file of every distribution."""

    name = "python"
    keys = frozenset({"directory", "interpreter", "requirements", "unhashed"})

    def look(self, report: Report) -> None:
        """Check the environment."""
        directory = self.expected["directory"]
        with report.looking_at(directory):
            if not self.node.exists(directory):
                report.absent(directory)
                return
            wanted = Wanted(
                path=self.node.path(directory),
                interpreter=Path(self.expected["interpreter"]),
                requirements=self.expected["requirements"],
                unhashed=self.expected.get("unhashed", []),
            )
            state = read_state(wanted)
            if not report.compare(directory, "works", "works" if state.usable else state.reason):
                return
            report.versions.update(state.installed)
            for pin in state.missing:
                name = pin.partition("==")[0]
                report.compare(f"{directory}: {name}", pin, state.installed.get(name, "absent"))
            for path in state.damaged:
                report.compare(f"{directory}: {Path(path).name}", "whole", "damaged")
            for name in state.extra:
                report.compare(f"{directory}: {name}", "absent", state.installed.get(name, "installed"))
