"""Only advisories for pinned packages are listed."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "requirements"))

import pins  # noqa: E402

ENTRIES: list[dict[str, Any]] = yaml.safe_load((ROOT / "roles/stack/vars/requirements/advisories.yml").read_text())[
    "stack_known_advisories"
]


@pytest.mark.parametrize("entry", ENTRIES, ids=[entry["package"] for entry in ENTRIES])
def test_an_advisory_is_of_what_is_pinned_now_and_says_what_contains_it(entry: dict[str, Any]) -> None:
    for environment in entry["environments"]:
        pinned = {pin.version for pin in pins.environments()[environment] if pin.name == entry["package"]}
        assert pinned == {entry["version"]}, f"{entry['package']} was moved: look at its advisories again"
    listed = [one for group in entry["advisories"] for one in group["ids"]]
    assert len(listed) == len(set(listed)) and all(re.fullmatch(r"(PYSEC|CVE|GHSA)-[\w-]+", one) for one in listed)
    assert entry["why"] and all(group["about"] and group["contained"] for group in entry["advisories"])


def test_the_stacks_readme_names_every_package_with_advisories() -> None:
    text = (ROOT / "roles/stack/README.md").read_text()
    (section,) = re.findall(r"## Known advisories.*?(?=\n## )", text, re.DOTALL)
    cells = re.findall(r"^\| ([a-z0-9, ]+) \|", section, re.MULTILINE)
    assert {name for cell in cells for name in cell.split(", ")} == {entry["package"] for entry in ENTRIES}


def test_pins_are_read_with_every_hash_that_pip_accepts() -> None:
    found = {pin.name: pin for pin in pins.environments()["bigdl-gpu"]}
    text = (ROOT / "roles/stack/vars/requirements/bigdl-gpu.txt").read_text()
    assert sum(len(pin.sha256) for pin in found.values()) == text.count("--hash=sha256:")
    assert found["torch"].sha256 == () and found["torch"].version.startswith("2.0.1")
