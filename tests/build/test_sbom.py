"""The bills of materials name all pins of the environments, and equal pins give equal bills."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.python_environment import requirement_lines

ROOT = Path(__file__).resolve().parents[2]
REQUIREMENTS = ROOT / "roles/stack/vars/requirements"
Bills = dict[str, dict[str, Any]]


def written(place: Path) -> Bills:
    """Write the bills and read them."""
    command = [os.environ["XPU_FLEET_SBOM"], str(ROOT / "requirements/sbom.py"), str(place)]
    subprocess.run(command, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"})
    return {path.name.removesuffix(".cdx.json"): json.loads(path.read_text()) for path in place.iterdir()}


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> Bills:
    return written(tmp_path_factory.mktemp("sbom"))


def test_there_is_one_for_each_environment_and_for_the_collection(bills: Bills) -> None:
    assert set(bills) == {path.stem for path in REQUIREMENTS.glob("*.txt")} | {"collection"}
    assert {bill["specVersion"] for bill in bills.values()} == {"1.6"}


@pytest.mark.parametrize("name", ["openvino", "bigdl-cpu", "bigdl-gpu"])
def test_an_environments_bill_has_every_pin_with_its_hashes(bills: Bills, name: str) -> None:
    text = (REQUIREMENTS / f"{name}.txt").read_text()
    pinned = {re.sub(r"\[.*?\]|\s*;.*|\s", "", line) for line in requirement_lines(text)}
    found = {f"{item['name']}=={item['version']}" for item in bills[name]["components"]}
    assert pinned <= found
    unhashed = {item.partition("==")[0] for item in found - pinned}
    assert unhashed == ({"torch", "torchvision", "intel-extension-for-pytorch"} if name == "bigdl-gpu" else set())
    digests = {item["content"] for part in bills[name]["components"] for item in part.get("hashes", [])}
    assert digests == set(re.findall(r"--hash=sha256:([0-9a-f]{64})", text))


def test_the_collections_bill_has_the_environments_and_the_stacks_packages(bills: Bills) -> None:
    names = {item["name"] for item in bills["collection"]["components"]}
    assert {"xpu.fleet openvino", "intel-opencl-icd", "intel-oneapi-mkl"} <= names
    assert any(name.startswith("Miniconda3") for name in names)


def test_the_same_pins_make_the_same_bills(bills: Bills, tmp_path: Path) -> None:
    assert written(tmp_path) == bills
