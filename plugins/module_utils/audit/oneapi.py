"""Layer oneapi: its repository, its packages, and the environment file of the services."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.xpu.fleet.plugins.module_utils.audit.layer import LayerAudit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.report import ABSENT, Report
from ansible_collections.xpu.fleet.plugins.module_utils.audit.repository import look_at_repositories
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.script_environment import environment_file, exported_by

_SECONDS = 60


class OneApiAudit(LayerAudit):
    """Compares the environment file with the script's current exports, as the role writes them."""

    name = "oneapi"
    keys = frozenset({"repositories", "script", "environment_file"})

    def look(self, report: Report) -> None:
        """Check the repository and the environment."""
        look_at_repositories(self.node, self.expected.get("repositories", ()), report)
        path, script = self.expected.get("environment_file"), self.expected.get("script")
        if not path or not script:
            return
        with report.looking_at(path):
            self._environment(report, path, script)

    def _environment(self, report: Report, path: str, script: str) -> None:
        found = self.node.text(path)
        if found is None:
            report.absent(path)
            return
        if not self.node.path(script).is_file():
            report.absent(script)
            return
        variables = exported_by(Path(self.node.path(script)), [], _SECONDS)
        wanted, present = _by_name(environment_file(variables)), _by_name(found)
        for name in sorted({*wanted, *present}):
            report.compare(f"{path}: {name}", wanted.get(name, ABSENT), present.get(name, ABSENT))


def _by_name(text: str) -> dict[str, str]:
    """Return the lines of an environment file by variable name."""
    return {line.partition("=")[0]: line for line in text.splitlines() if line and not line.startswith("#")}
