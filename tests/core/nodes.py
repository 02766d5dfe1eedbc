"""The unit tests of node-side code, on one Python."""

from __future__ import annotations

import re
from pathlib import Path

from tests.core.runs import ROOT, CoreError, Done, controllers, environment, step
from tests.pythons import found

#: The core whose node-side part the modules run with: that of `make test` and `make demo`.
CORE = "2.19"
PLACES = ("tests/unit/plugins/modules", "tests/unit/plugins/module_utils")
#: Modules that only tests of the controller's side import or call.
CONTROLLER = re.compile(
    r"plugins\.(plugin_utils|filter|action|callback)\b"
    r"|^(from|import) (ansible\.(?!module_utils)|jinja2)"
    r"|ansible-playbook",
    re.MULTILINE,
)


def tests(version: tuple[int, int], python: Path) -> list[Done]:
    """Run them on one Python. Raises CoreError if one fails."""
    (controller,) = controllers([CORE], found()).values() or [None]
    if controller is None:
        raise CoreError(f"there is no Python for ansible-core {CORE}, which has the modules' part for nodes")
    name = ".".join(map(str, version))
    venv = environment("node", python)
    link = next((venv / "lib").glob("python3*/site-packages")) / "ansible"
    if not link.exists():
        core = environment(f"core-{CORE}", controller)
        link.symlink_to(next((core / "lib").glob("python3*/site-packages/ansible")))
    ignored = [f"--ignore={path}" for path in controller_tests()]
    said = step(f"node Python {name}", [str(venv / "bin/python"), "-m", "pytest", "-v", *ignored, *PLACES], venv)
    (count,) = re.findall(r"(\d+) passed", said)
    return [Done("none", "", f"Python {name}", [f"{count} unit tests of modules and their parts"])]


def controller_tests() -> list[Path]:
    """Return the node-side test files that also test the controller."""
    return [
        path.relative_to(ROOT)
        for place in PLACES
        for path in sorted((ROOT / place).rglob("test_*.py"))
        if CONTROLLER.search(path.read_text(encoding="utf-8"))
    ]
