"""No data of a node ends a fleet's audit, changes another node's row, or reaches a terminal unfiltered."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.audit.audits import (
    summary,
)
from ansible_collections.xpu.fleet.plugins.module_utils.audit.before import trend
from ansible_collections.xpu.fleet.plugins.module_utils.audit.door import admitted_layers
from ansible_collections.xpu.fleet.plugins.module_utils.audit.due import due_layers, reasons
from ansible_collections.xpu.fleet.plugins.module_utils.audit.junit import junit
from ansible_collections.xpu.fleet.plugins.module_utils.audit.plan import fleet_plan
from ansible_collections.xpu.fleet.plugins.module_utils.gpu.answer import AnswerError, admitted_gpus
from ansible_collections.xpu.fleet.plugins.module_utils.layers import (
    NAMES,
)
from ansible_collections.xpu.fleet.plugins.module_utils.plain import is_text, one_line, plain, plain_data
from ansible_collections.xpu.fleet.plugins.plugin_utils.audit_page import page
from ansible_collections.xpu.fleet.tests.unit.plugins.support.audit_fleet import HELD, drift, node, report
from ansible_collections.xpu.fleet.tests.unit.plugins.support.malformed import EVIL_TEXTS, JUNK, hostile, malformed

#: What is made from a seed, "kind layer number", is always the same: one that fails is named by its seed.
SEEDS = {name: [f"{name} {number}" for number in range(500)] for name in NAMES}
GOOD = {"good": node(), "drifted": node(model=drift(HELD)), "unsure": {"reason": "no stack fits"}}
ALONE = report(GOOD)


def cells(row: str) -> list[str]:
    """The cells of a row."""
    return re.split(r" {2,}", row)


def assert_others_are_right(fleet: dict[str, Any], cell: dict[str, str], seed: str) -> None:
    """The rows of the other nodes are theirs, that of the evil one has these cells, and no line is forged."""
    table = fleet["table"]
    assert all(is_text(char) for line in table for char in line), seed
    assert max(map(len, table)) < 2000, seed
    rows = {cells(line)[0]: cells(line) for line in table[1:5]}
    assert rows["good"] == ["good", "arc-647", *["ok"] * len(NAMES)], seed
    assert rows["drifted"] == ["drifted", "arc-647", *("DRIFT" if name == "model" else "ok" for name in NAMES)], seed
    assert rows["unsure"] == ["unsure", "?", *["?"] * len(NAMES)], seed
    assert rows["evil"][2:] == [cell.get(name, "ok") for name in NAMES], seed
    begins = ("evil: ", "drifted: model: hold of x", "unsure: no stack fits")
    assert [line for line in table[5:] if not line.startswith(begins)] == [], seed
    assert all(fleet["nodes"][host] == ALONE["nodes"][host] for host in GOOD), seed


@pytest.mark.parametrize("name", NAMES)
def test_500_malformed_results_of_a_layer_are_not_looked_at(name: str) -> None:
    for seed in SEEDS[name]:
        fleet = report({"evil": node(**{name: malformed(seed)}), **GOOD})
        assert_others_are_right(fleet, {name: "?"}, seed)
        layer = fleet["nodes"]["evil"]["layers"][name]
        assert layer["reason"].startswith("the node's answer is malformed: "), seed
        assert fleet["exit"] == 2 and fleet["nodes"]["evil"]["status"] == "not_looked_at", seed
        layers = node(**{name: malformed(seed)})["layers"]
        assert name in due_layers(layers, NAMES), seed
        assert reasons(layers, [name])[0].startswith(f"{name}: the node's answer is malformed: "), seed


@pytest.mark.parametrize("name", NAMES)
def test_500_hostile_texts_of_a_layer_forge_nothing(name: str) -> None:
    for seed in SEEDS[name]:
        layers = {name: hostile(seed)}
        assert_others_are_right(report({"evil": node(**layers), **GOOD}), {name: "DRIFT"}, seed)
        assert all(is_text(char) for line in reasons(layers, [name]) for char in line), seed


@pytest.mark.parametrize("name", NAMES)
def test_what_is_written_of_them_can_be_read(name: str) -> None:
    evil = {f"m{seed}": node(**{name: malformed(seed)}) for seed in SEEDS[name][::5]}
    evil |= {f"h{seed}": node(**{name: hostile(seed)}) for seed in SEEDS[name][::50]}
    fleet = report({**evil, **GOOD})
    changed = trend(fleet, [{"time": "2026-11-01T00:00:00Z", "nodes": {"good": dict.fromkeys(NAMES, "ok")}}])
    assert "<script" not in page(fleet, changed)
    assert len(ElementTree.fromstring(junit(fleet))) == len(evil) + len(GOOD)  # noqa: S314
    assert json.loads(json.dumps(fleet, allow_nan=False))["exit"] == 2
    said = fleet_plan(fleet, NAMES)["lines"]
    assert [line for line in said if line.startswith("good: ")] == []
    assert all(is_text(char) for line in said for char in line)


@pytest.mark.parametrize("place", ["all", "layers", "gpus", "cards", "card", "stack", "system", "reason", "reached"])
@pytest.mark.parametrize("number", range(len(JUNK)))
def test_a_node_that_returns_anything_at_all_is_one_row(place: str, number: int) -> None:
    junk = JUNK[number]
    evil = junk if place == "all" else node()
    if place == "card":
        evil["cards"] = [dict.fromkeys(("name", "address", "memory_bytes"), junk)]
    elif place != "all":
        evil[place] = junk
    fleet = report({"evil": evil, **GOOD})
    assert fleet["exit"] == 2
    told = [line for line in fleet["table"] if line.startswith("evil")]
    assert all(is_text(char) for line in fleet["table"] for char in line)
    others = [line for line in ALONE["table"][1:] if not line.startswith("evil")]
    assert [cells(line) for line in fleet["table"][1:] if line not in told] == [cells(line) for line in others]
    page(fleet)
    junit(fleet)
    json.dumps(fleet, allow_nan=False)


@pytest.mark.parametrize("layers", [{"evil": {"status": "ok"}}, {"a\nb": {}}, [], "ok", {7: {"status": "ok"}}])
def test_a_node_with_no_layer_that_there_is_is_never_in_order(layers: Any) -> None:
    evil = {**node(), "layers": {**node()["layers"], **layers} if isinstance(layers, dict) else layers}
    fleet = report({"evil": evil})
    assert fleet["exit"] == 2
    assert any(line.startswith("evil: the node's answer is malformed: ") for line in fleet["table"])


def test_a_layer_that_was_asked_for_and_not_answered_was_not_looked_at() -> None:
    layers = admitted_layers({"kernel": node()["layers"]["kernel"], "model": {}}, NAMES, ["kernel", "driver"])
    assert {name: layer["status"] for name, layer in layers.items()} == {"kernel": "ok", "driver": "not_looked_at"}
    assert summary(layers) == "not_looked_at"


def gpu(**more: Any) -> dict[str, Any]:
    """A card as module gpu_info returns it."""
    told = {"address": "0000:03:00.0", "id": "8086:56a0", "name": "Intel Arc A770", "family": "arc", "driver": "i915"}
    return {**told, "memory_bytes": 1, **more}


def answer(**more: Any) -> dict[str, Any]:
    """What module gpu_info returns."""
    system = {
        "distribution": "Ubuntu",
        "release": "22.04",
        "codename": "jammy",
        "kernel": "5.19",
        "architecture": "x86_64",
    }
    known: dict[str, Any] = {"gpus": [gpu()], "lent": [], "others": [], "families": ["arc"], "served": ["0000:03:00.0"]}
    return {**known, "container": True, "secure_boot": False, "system": system, **more}


def test_of_a_nodes_gpus_what_is_documented_is_handed_on() -> None:
    found = admitted_gpus({**answer(families=["evil"], ansible_facts={"x": 1}), "xpu_users": ["eve"]})
    assert found["families"] == ["arc"]
    assert set(found) == {"gpus", "lent", "others", "families", "served", "container", "secure_boot", "system"}
    assert found["gpus"][0]["memory_bytes"] == 1 and found["gpus"][0]["firmware"] == {}


@pytest.mark.parametrize("key", ["gpus", "lent", "others", "served", "container", "secure_boot", "system"])
def test_a_nodes_gpus_of_the_wrong_shape_are_refused(key: str) -> None:
    for junk in JUNK:
        wrong = [[junk]] if key in ("gpus", "lent", "others", "served") and junk != [] else [junk]
        if (key in ("container", "secure_boot") and isinstance(junk, bool)) or junk == []:
            continue
        for value in wrong:
            with pytest.raises(AnswerError):
                admitted_gpus(answer(**{key: value}))


@pytest.mark.parametrize(
    "broken",
    [
        *({"address": "../../etc"}, {"address": "0000:03:00.0\n"}, {"id": "8086"}, {"family": "evil"}, {"family": []}),
        *({"memory_bytes": "16"}, {"memory_bytes": True}, {"name": None}, {"firmware": []}),
    ],
)
def test_a_gpu_that_cannot_be_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(AnswerError):
        admitted_gpus(answer(gpus=[gpu(**broken)]))


@pytest.mark.parametrize("text", EVIL_TEXTS)
def test_plain_text_has_nothing_that_a_terminal_obeys(text: str) -> None:
    assert all(is_text(char) or char in "\n\t" for char in plain(text))
    assert all(is_text(char) for char in one_line(text))
    (nested,) = plain_data([{text: (text, {text})}])
    assert all(is_text(char) or char == "\n" for char in str(nested))


@pytest.mark.parametrize("text", ["é😀 naïve", "日本語", "שלום", "a b", "[2m", "`~|\\"])
def test_plain_text_is_left_as_it_is(text: str) -> None:
    assert plain(text) == text


def test_the_notes_of_a_layer_come_through_without_what_a_terminal_obeys() -> None:
    layer = {**node()["layers"]["driver"], "notes": ["an older runtime\x1b[2J", "a card of 8 GB"]}
    (found,) = admitted_layers({"driver": layer}, ["driver"]).values()
    assert found["status"] == "ok" and len(found["notes"]) == 2
    assert "\x1b" not in "".join(found["notes"]) and found["notes"][1] == "a card of 8 GB"


@pytest.mark.parametrize("notes", ["a text", [1], [["a"]], {"a": "b"}, ["a"] * 2001])
def test_notes_that_make_no_sense_are_a_layer_that_was_not_looked_at(notes: Any) -> None:
    layer = {**node()["layers"]["driver"], "notes": notes}
    (found,) = admitted_layers({"driver": layer}, ["driver"]).values()
    assert found["status"] == "not_looked_at" and "notes" in found["reason"] and found["notes"] == []
