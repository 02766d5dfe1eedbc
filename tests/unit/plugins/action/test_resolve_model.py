"""The weights of a node are decided on the controller, from the data of role model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from ansible_collections.xpu.fleet.plugins.filter.gpus import serving_gpus
from ansible_collections.xpu.fleet.tests.unit.plugins.support.action_run import run_action

ROOT = Path(__file__).resolve().parents[4]


def wanted(**changes: Any) -> dict[str, Any]:
    """Arguments for the smallest model of the catalogue on a processor, with these changes of the request."""
    data = yaml.safe_load((ROOT / "roles/model/vars/main.yml").read_text())
    request = {
        "name": "smollm2-135m-instruct",
        "catalogue": data["model_catalogue"],
        "engines": data["model_engines"],
        "bits_per_weight": data["model_bits_per_weight"],
        "engine": "openvino",
        "device": "cpu",
    }
    node = {"gpus": changes.pop("gpus", []), "memory_mb": 16384}
    return {"request": {**request, **changes}, **node}


def test_a_model_of_the_catalogue_is_planned(tmp_path: Path) -> None:
    plan = run_action("resolve_model", tmp_path, **wanted())
    assert not plan["changed"] and plan["model"]["name"] == "smollm2-135m-instruct"


def test_a_path_that_the_controller_lacks_is_named(tmp_path: Path) -> None:
    source = {"controller_path": str(tmp_path / "gone")}
    refused = run_action("resolve_model", tmp_path, **wanted(source=source))
    assert refused["failed"] and f"there is no {tmp_path}/gone on the controller" in refused["msg"]


def test_a_model_that_nobody_knows_is_named(tmp_path: Path) -> None:
    assert "smollm3" in run_action("resolve_model", tmp_path, **wanted(name="smollm3"))["msg"]


GIB = 1024**3


def card(name: str, gibibytes: int, address: str) -> dict[str, Any]:
    return {"name": name, "id": "8086:56a0", "address": address, "memory_bytes": gibibytes * GIB}


SMALL, LARGE = card("Intel Arc A380", 6, "0000:03:00.0"), card("Intel Arc A770", 16, "0000:07:00.0")
SEVEN = {"name": "llama-2-7b-chat", "engine": "bigdl", "device": "gpu"}


def test_each_card_is_judged_by_its_own_memory(tmp_path: Path) -> None:
    said = run_action("resolve_model", tmp_path, **wanted(**SEVEN, low_bit="sym_int8", gpus=[LARGE, SMALL]))["msg"]
    assert "Intel Arc A380 (8086:56a0) at 0000:03:00.0 has 6.0 GiB" in said
    assert "fits on Intel Arc A770 (8086:56a0) at 0000:07:00.0 (inference_instances: 1 serves there alone)" in said


def test_a_card_that_no_instance_gets_is_not_judged(tmp_path: Path) -> None:
    served = serving_gpus([SMALL, LARGE], "1")
    assert "model" in run_action("resolve_model", tmp_path, **wanted(**SEVEN, low_bit="sym_int8", gpus=served))


def test_nothing_is_advised_where_no_card_has_the_memory(tmp_path: Path) -> None:
    cards = [SMALL, card("Intel Arc A310", 4, "0000:09:00.0")]
    said = run_action("resolve_model", tmp_path, **wanted(**SEVEN, low_bit="sym_int8", gpus=cards))["msg"]
    assert "A310 (8086:56a0) at 0000:09:00.0 has 4.0 GiB" in said and "inference_instances" not in said
