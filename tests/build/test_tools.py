"""The tools of Ansible's ecosystem on the artifact, unmodified, as their users run them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from tests.build.artifact import COLLECTION, ROOT, ansible, artifact, run


def test_galaxy_importer_takes_it(folder: Path) -> None:
    """What Galaxy runs on an upload; what it asks of ansible-lint, in three minutes by the clock, is asked below."""
    command = [sys.executable, "-m", "galaxy_importer.main", str(artifact(folder))]
    settings = {"GALAXY_IMPORTER_CHECK_REQUIRED_TAGS": "1", "GALAXY_IMPORTER_RUN_ANSIBLE_LINT": "0"}
    result = run(command, folder, HOME=str(folder), **settings)
    complaints = [line for line in result.stdout.splitlines() if line.startswith(("ERROR", "WARNING"))]
    assert complaints == []
    assert "Importer processing completed successfully" in result.stdout, result.stdout + result.stderr
    contents = json.loads((folder / "importer_result.json").read_text())["contents"]
    roles = {entry["name"] for entry in contents if entry["content_type"] == "role"}
    assert roles == {path.name for path in (ROOT / "roles").iterdir()}


def test_ansible_lint_finds_nothing_at_profile_production(folder: Path) -> None:
    command = ["ansible-lint", "--profile", "production", "--offline", "--nocolor"]
    result = run(command, folder, COLLECTION, HOME=str(folder))
    assert result.returncode == 0, result.stdout + result.stderr
    passed = re.search(r"Passed: 0 failure\(s\), 0 warning\(s\) in (\d+) files", result.stderr + result.stdout)
    assert passed and int(passed[1]) > len(list(ROOT.glob("roles/*/tasks/*.yml")))


def test_antsibull_docs_finds_nothing(folder: Path) -> None:
    """Documentation of plugins and roles: syntax, references among them, and markup."""
    command = ["antsibull-docs", "lint-collection-docs", "--plugin-docs", "--validate-collection-refs=self", "."]
    ansible(command, folder, COLLECTION)


def test_an_execution_environment_gets_what_the_collection_imports(folder: Path) -> None:
    """ansible-builder reads which Python packages a controller in a container needs."""
    listed = ansible(["ansible-builder", "introspect", "--sanitize", str(folder)], folder)
    assert re.search(r"^rich\b", re.sub(r"(?m)^\s*-?\s*['\"]?", "", listed), re.MULTILINE), listed
