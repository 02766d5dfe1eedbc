"""Keep the roles' option tables and defaults true to their argument specs.

``docs.py`` writes the table of each role's README.md between its markers; ``docs.py --check`` changes nothing and
fails where a table is old, or where meta/argument_specs.yml and defaults/main.yml do not say the same.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROLES = Path(__file__).resolve().parents[1] / "roles"
BEGIN, END = "<!-- variables -->", "<!-- /variables -->"


def main() -> int:
    """Return 0 where every role is in order; print what is not, one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where something is old")
    parser.add_argument("--roles", type=Path, default=ROLES, help="directory of the roles")
    options = parser.parse_args()
    problems = []
    for specs in sorted(options.roles.glob("*/meta/argument_specs.yml")):
        role = specs.parents[1]
        entries = read(specs)["argument_specs"]
        problems += [f"{role.name}: {problem}" for problem in compare(entries, read(role / "defaults/main.yml"))]
        problems += [f"{role.name}: {problem}" for problem in update(role / "README.md", entries, options.check)]
    print("\n".join(problems) or "All roles' options, defaults and tables agree.")
    return 1 if problems else 0


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, {} where there is none."""
    return (yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}


def compare(entries: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Return where the entry points of a role differ from each other or from its defaults."""
    problems = []
    options = entries["main"].get("options", {})
    for name, entry in entries.items():
        if entry.get("options", {}) != options:
            problems.append(f"entry point {name} has other options than main")
    optional = {name: option for name, option in options.items() if not option.get("required")}
    for name in sorted(optional.keys() - defaults.keys()):
        problems.append(f"{name} is in meta/argument_specs.yml but not in defaults/main.yml")
    for name in sorted(defaults.keys() - options.keys()):
        problems.append(f"{name} is in defaults/main.yml but not in meta/argument_specs.yml")
    for name in sorted(options.keys() & defaults.keys()):
        if options[name].get("default") != defaults[name]:
            problems.append(f"{name} has another default in meta/argument_specs.yml than in defaults/main.yml")
    return problems


def update(readme: Path, entries: dict[str, Any], check: bool) -> list[str]:
    """Bring the table of ``readme`` up to date, or with ``check`` return what is wrong with it."""
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        return [f"README.md needs the markers {BEGIN} and {END} once each"]
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    fresh = f"{head}{BEGIN}\n{table(entries['main'].get('options', {}))}{END}{tail}"
    if fresh == text:
        return []
    if check:
        return ["the variable table of README.md is old; run `make docs`"]
    readme.write_text(fresh, encoding="utf-8")
    return []


def table(options: dict[str, Any]) -> str:
    """Return the options as a Markdown table."""
    rows = ["| Variable | Type | Default | What it does |", "|---|---|---|---|"]
    for name, option in options.items():
        rows.append(f"| `{name}` | {kind(option)} | {default(option)} | {meaning(option)} |")
    return "\n".join(rows) + "\n"


def kind(option: dict[str, Any]) -> str:
    """Return the type of an option in words."""
    name = str(option.get("type", "str"))
    return f"{name} of {option['elements']}" if "elements" in option else name


def default(option: dict[str, Any]) -> str:
    """Return the default value as it would be written in an inventory."""
    if option.get("required"):
        return "required"
    value = option.get("default")
    text = value if isinstance(value, str) and value else json.dumps(value)
    return f"`{escape(text)}`"


def meaning(option: dict[str, Any]) -> str:
    """Return the description and the choices in one line."""
    description = option.get("description", "")
    text = " ".join(description) if isinstance(description, list) else str(description)
    text = escape(" ".join(text.split())).replace("C(", "`(")
    while "`(" in text:
        before, after = text.split("`(", 1)
        inside, rest = after.split(")", 1)
        text = f"{before}`{inside}`{rest}"
    if "choices" in option:
        text += " One of " + ", ".join(f"`{choice}`" for choice in option["choices"]) + "."
    return text


def escape(text: str) -> str:
    """Return text that keeps to its table cell."""
    return text.replace("|", r"\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
