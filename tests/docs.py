"""Keep tables in READMEs true to the data they come from, and roles' defaults to their argument specs.

``docs.py`` writes the table of variables in each role's README.md, the table of stacks in the collection's and in role
stack's, and that of what works where in the collection's. ``docs.py --check`` changes nothing and fails where a table
is old, where meta/argument_specs.yml and defaults/main.yml do not say the same, or where a translation of the
collection's README is out of step with it.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import yaml
from jinja2 import ChainableUndefined, TemplateError
from jinja2.nativetypes import NativeEnvironment

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "collections"), str(ROOT)]

from ansible_collections.xpu.fleet.plugins.module_utils.gpu.gpu_ids import GPUS  # noqa: E402
from ansible_collections.xpu.fleet.plugins.module_utils.packages.dpkg import (  # noqa: E402
    Version,
)
from ansible_collections.xpu.fleet.plugins.module_utils.stack.data import applies, varied  # noqa: E402

from tests.translation import differences  # noqa: E402

FAMILIES = {"arc": "Arc A-series", "arc-b": "Arc B-series", "flex": "Flex", "max": "Max"}


def main() -> int:
    """Return 0 where every role is in order; print what is not, one line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing, fail where something is old")
    parser.add_argument("--root", type=Path, default=ROOT, help="directory of the collection")
    options = parser.parse_args()
    root, problems = options.root, []
    for specs in sorted(root.glob("roles/*/meta/argument_specs.yml")):
        role = specs.parents[1]
        entries, defaults = read(specs)["argument_specs"], read(role / "defaults/main.yml")
        problems += [f"{role.name}: {problem}" for problem in compare(entries, defaults)]
        table = variables(entries["main"].get("options", {}), defaults)
        problems += update(role / "README.md", "variables", table, options.check)
    original, translations = root / "README.md", sorted(root.glob("README.*.md"))
    for readme in (original, *translations):
        problems += update(readme, "works", works(root / "roles/stack/vars"), options.check)
    for readme in (original, *translations, root / "roles/stack/README.md"):
        problems += update(readme, "stacks", stacks(root / "roles/stack/vars"), options.check)
    for translation in translations:
        problems += differences(original, translation)
    print("\n".join(problems) or "All options, defaults and tables agree.")
    return 1 if problems else 0


def read(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file, {} without one."""
    return (yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None) or {}


def compare(entries: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Return the differences between a role's entry points, or from its defaults."""
    problems = []
    options = entries["main"].get("options", {})
    if "preflight" in entries and entries["preflight"].get("options", {}) != options:
        problems.append("entry point preflight has other options than main")
    optional = {name: option for name, option in options.items() if not option.get("required")}
    for name in sorted(optional.keys() - defaults.keys()):
        problems.append(f"{name} is in meta/argument_specs.yml but not in defaults/main.yml")
    for name in sorted(defaults.keys() - options.keys()):
        problems.append(f"{name} is in defaults/main.yml but not in meta/argument_specs.yml")
    for name in sorted(options.keys() & defaults.keys()):
        if options[name].get("required"):
            problems.append(f"{name} is required and yet has a default")
        elif options[name].get("default") not in (defaults[name], by_itself(defaults[name])):
            problems.append(f"{name} has another default in meta/argument_specs.yml than in defaults/main.yml")
    return problems


def by_itself(value: Any) -> Any:
    """Return a default without other variables: a spec's default has to be of the option's type."""
    if isinstance(value, list):
        return [by_itself(item) for item in value]
    if not isinstance(value, str) or "{{" not in value:
        return value
    try:
        return NativeEnvironment(undefined=ChainableUndefined).from_string(value).render()
    except TemplateError:  # it takes what only Ansible has
        return value


def update(readme: Path, name: str, table: list[list[str]], check: bool) -> list[str]:
    """Write ``table`` between the markers of that name, or with ``check`` return the difference."""
    begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
    text = readme.read_text(encoding="utf-8") if readme.exists() else ""
    if text.count(begin) != 1 or text.count(end) != 1:
        return [f"{readme}: needs the lines {begin.strip()} and {end} once each"]
    head, rest = text.split(begin)
    rows = [f"| {' | '.join(cells)} |\n" for cells in table]
    fresh = "".join([head, begin, rows[0], "|---" * len(table[0]) + "|\n", *rows[1:], end, rest.split(end)[1]])
    if fresh == text:
        return []
    if check:
        return [f"{readme}: the table of {name} is old; run `make docs`"]
    readme.write_text(fresh, encoding="utf-8")
    return []


def variables(options: dict[str, Any], defaults: dict[str, Any]) -> list[list[str]]:
    """Return the table of a role's options, with the defaults of defaults/main.yml, which name their variables."""
    rows = [
        [f"`{name}`", kind(option), default({**option, "default": defaults.get(name)}), meaning(option)]
        for name, option in options.items()
    ]
    return [["Variable", "Type", "Default", "What it does"], *rows]


def stacks(directory: Path) -> list[list[str]]:
    """Return the table of all stacks."""
    rows = []
    for path in sorted(directory.glob("*.yml")):
        stack = read(path)["stack_definition"]
        families = ", ".join(FAMILIES[family] for family in stack["families"]) or "none"
        systems = ", ".join(f"{system['name']} {system['release']}" for system in stack["distributions"])
        rows.append([f"`{path.stem}`", families, systems, stack["title"], f"`{stack['model']}`"])
    return [["Stack", "GPUs", "Systems", "What it is", "Model unless you choose"], *rows]


#: The evidence that a stack works, by the word in its data.
EVIDENCE = {
    "stand-ins": "run here on stand-ins",
    "document": "Intel's document",
    "reported": "reported by users",
}
#: The drivers of the kernel, by family.
DRIVERS = {"arc": "i915", "arc-b": "xe", "flex": "i915", "max": "i915"}


def works(directory: Path) -> list[list[str]]:
    """Return the table of families and releases of Ubuntu: the stacks for them, and the evidence."""
    known = {path.stem: read(path)["stack_definition"] for path in sorted(directory.glob("*.yml"))}
    releases = sorted({entry["release"] for stack in known.values() for entry in _ubuntus(stack)})
    rows = []
    for family in [*FAMILIES, ""]:
        for release in releases:
            serving = [name for name, stack in known.items() if _serves(stack, family, release)]
            for name in serving:
                chosen = f"`{name}`" if name == serving[0] else f"`{name}`, if named"
                stack = varied(known[name], [family], release)
                rows.append([FAMILIES.get(family, "no GPU"), release, chosen, *_row(stack, family, release)])
            if not serving:
                rows.append([FAMILIES.get(family, "no GPU"), release, "none", "", "", "", ""])
    return [["GPUs", "Ubuntu", "Stack", "Kernel", "Driver", "Engine", "How it is known"], *rows]


def _ubuntus(stack: dict[str, Any]) -> list[dict[str, str]]:
    return [entry for entry in stack["distributions"] if entry["name"] == "Ubuntu"]


def _serves(stack: dict[str, Any], family: str, release: str) -> bool:
    families = stack["families"] or [""]
    return family in families and release in [entry["release"] for entry in _ubuntus(stack)]


def _row(stack: dict[str, Any], family: str, release: str) -> list[str]:
    evidence = [entry for entry in stack.get("evidence", ()) if applies(entry, [family], release)]
    how = [EVIDENCE[entry["how"]] + (f" ({entry['source']})" if "source" in entry else "") for entry in evidence]
    driver, repository = stack.get("driver") or {}, stack.get("repositories", {}).get("graphics")
    place = "Ubuntu" if not repository else "the PPA" if "ppa." in repository["uris"][0] else "Intel"
    module = "i915 by DKMS" if driver.get("dkms") else f"{DRIVERS.get(family)} of the kernel"
    return [
        _kernel(stack, family, release) or "any",
        f"{module}, packages of {place}" if driver else "none",
        ", ".join(stack.get("engines", ())),
        "; ".join(how),
    ]


def _kernel(stack: dict[str, Any], family: str, release: str) -> str:
    """Return a stack's kernel, by card if they differ."""
    kernel = stack.get("kernel") or {}
    if kernel.get("release"):
        return str(kernel["release"])
    entries = [entry for entry in stack.get("minimum_kernels", ()) if applies(entry, (), release)]
    whole = max(
        [*(entry["kernel"] for entry in entries if family in entry["devices"]), kernel.get("at_least", "0")],
        key=Version,
    )
    said = [] if whole == "0" else [f"{whole} or newer"]
    for entry in entries:
        names = sorted(
            {GPUS[device][1].removeprefix("Intel Arc ") for device in entry["devices"] if _of(device, family)}
        )
        if names and Version(entry["kernel"]) > Version(whole):
            doubt = " (one source)" if entry["confidence"] != "H" else ""
            # Ids without a name of their own stay together.
            told = "others" if any("(" in name for name in names) else ", ".join(names)
            said.append(f"{told}: {entry['kernel']}{doubt}")
    return "; ".join(said) + (f", older than {kernel['before']}" if kernel.get("before") else "")


def _of(device: str, family: str) -> bool:
    return device in GPUS and GPUS[device][0] == family


def kind(option: dict[str, Any]) -> str:
    """Return the type of an option in words."""
    name = str(option.get("type", "str"))
    return f"{name} of {option['elements']}" if "elements" in option else name


def default(option: dict[str, Any]) -> str:
    """Return the default value as an inventory would have it."""
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
    """Return text that stays in its table cell."""
    return text.replace("|", r"\|").replace("\n", " ")


if __name__ == "__main__":
    sys.exit(main())
