"""The weights of a node are decided on the controller, from the data of role model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_collections.xpu.fleet.tests.unit.plugins.support.action_run import run_action

ROOT = Path(__file__).resolve().parents[4]


def wanted(**changes: Any) -> dict[str, Any]:
    """Options for the smallest model of the catalogue on a processor."""
    data = yaml.safe_load((ROOT / "roles/model/vars/main.yml").read_text())
    options = {
        "name": "smollm2-135m-instruct",
        "catalogue": data["model_catalogue"],
        "engines": data["model_engines"],
        "bits_per_weight": data["model_bits_per_weight"],
        "engine": "openvino",
        "device": "cpu",
        "memory_mb": 16384,
    }
    return {**options, **changes}


def test_a_model_of_the_catalogue_is_planned(tmp_path: Path) -> None:
    plan = run_action("resolve_model", tmp_path, **wanted())
    assert not plan["changed"] and plan["model"]["name"] == "smollm2-135m-instruct"


def test_a_path_that_the_controller_lacks_is_named(tmp_path: Path) -> None:
    source = {"controller_path": str(tmp_path / "gone")}
    refused = run_action("resolve_model", tmp_path, **wanted(source=source))
    assert refused["failed"] and f"there is no {tmp_path}/gone on the controller" in refused["msg"]


def test_a_model_that_nobody_knows_is_named(tmp_path: Path) -> None:
    assert "smollm3" in run_action("resolve_model", tmp_path, **wanted(name="smollm3"))["msg"]
