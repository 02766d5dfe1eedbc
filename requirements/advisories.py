"""Ask PyPI's advisory database about every pinned package, and compare with the advisories that were looked at.

``python advisories.py``; 0 where each one that is known is listed in advisories.yml, 1 where not, 2 where the database
does not answer for a package that it should know.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from typing import Any

import yaml
from pins import ROOT, environments

LISTED = ROOT / "roles/stack/vars/requirements/advisories.yml"


def main() -> int:
    """Report by environment; return the exit status."""
    status = 0
    for name, pins in environments().items():
        # The database has no versions of builds: 2.13.0+cpu is 2.13.0 there.
        found: dict[str, dict[str, list[str]]] = {}
        unknown: list[str] = []
        for wanted in rounds({(pin.name, pin.version.partition("+")[0]) for pin in pins}):
            answer, skipped = ask(wanted)
            unknown += skipped
            for package, ids in answer.items():
                found.setdefault(package, {}).update(ids)
        if unknown:
            print(f"{name}: the advisory database does not answer for {', '.join(unknown)}", file=sys.stderr)
            status = 2
        known = listed(name)
        for package, ids in sorted(found.items()):
            missing = [shown for shown, aliases in ids.items() if not {shown, *aliases} & known.get(package, set())]
            if missing:
                print(f"{name}: {package} has {', '.join(missing)}, not in {LISTED.name}", file=sys.stderr)
                status = status or 1
        for package, ids_listed in sorted(known.items()):
            reported = {one for shown, aliases in found.get(package, {}).items() for one in (shown, *aliases)}
            if not unknown and ids_listed - reported:
                print(f"{name}: {package} no longer has {', '.join(sorted(ids_listed - reported))}")
    return status


def rounds(pins: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Return the pins in files that name no package twice: an environment may have one version for each Python."""
    files: list[dict[str, str]] = []
    for name, version in sorted(pins):
        free = next((file for file in files if name not in file), None)
        if free is None:
            files.append(free := {})
        free[name] = version
    return [[f"{name}=={version}" for name, version in file.items()] for file in files]


def ask(pins: list[str]) -> tuple[dict[str, dict[str, list[str]]], list[str]]:
    """Return the advisories of each package with their other names, and the packages that were not found."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(pins))
        file.flush()
        command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
        done = subprocess.run([*command, "-f", "json", "-r", file.name], capture_output=True, text=True, check=False)
    if not done.stdout.strip():
        return {}, [done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "anything"]
    answer: dict[str, Any] = json.loads(done.stdout)
    found = {
        item["name"]: {one["id"]: one.get("aliases", []) for one in item["vulns"]}
        for item in answer["dependencies"]
        if item.get("vulns")
    }
    return found, [item["name"] for item in answer["dependencies"] if item.get("skip_reason")]


def listed(environment: str) -> dict[str, set[str]]:
    """Return the advisories that were looked at, by package."""
    entries = yaml.safe_load(LISTED.read_text(encoding="utf-8"))["stack_known_advisories"]
    return {
        entry["package"]: {one for group in entry["advisories"] for one in group["ids"]}
        for entry in entries
        if environment in entry["environments"]
    }


if __name__ == "__main__":
    sys.exit(main())
