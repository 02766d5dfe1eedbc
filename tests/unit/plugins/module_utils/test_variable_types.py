"""Variables are refused where they are not of the type that the role declares."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import foreign_facts, problems


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ({"type": "str"}, "text"),
        ({"type": "str"}, 11),
        ({}, "text"),
        ({"type": "int"}, 8000),
        ({"type": "int"}, "8000"),
        ({"type": "bool"}, False),
        ({"type": "list", "elements": "str"}, []),
        ({"type": "list", "elements": "str"}, ["a", "b"]),
        ({"type": "dict"}, {"a": 1}),
        ({"type": "raw"}, None),
    ],
)
def test_a_value_of_its_type_passes(option: dict[str, Any], value: Any) -> None:
    assert problems({"name": option}, {"name": value}) == []


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ({"type": "str"}, ["a"], "name must be a string, but is a list: ['a']."),
        ({"type": "path"}, {"a": 1}, "name must be a string, but is a mapping: {'a': 1}."),
        ({"type": "str"}, True, "name must be a string, but is a boolean: True."),
        ({"type": "str"}, None, "name must be a string, but is empty: None."),
        ({"type": "int"}, "many", "name must be a whole number, but is a string: 'many'."),
        ({"type": "int"}, True, "name must be a whole number, but is a boolean: True."),
        ({"type": "bool"}, "yes", "name must be true or false, but is a string: 'yes'."),
        ({"type": "list"}, "xpu", "name must be a list, but is a string: 'xpu'."),
        ({"type": "dict"}, [], "name must be a mapping, but is a list: []."),
        ({"type": "str", "no_log": True}, ["secret"], "name must be a string, but is a list."),
        ({"type": "list", "elements": "str"}, ["a", {}], "name[1] must be a string, but is a mapping: {}."),
        (
            {"type": "dict", "options": {"port": {"type": "int"}}},
            {"port": "x"},
            "name.port must be a whole number, but is a string: 'x'.",
        ),
    ],
)
def test_a_value_of_another_type_is_named(option: dict[str, Any], value: Any, said: str) -> None:
    assert problems({"name": option}, {"name": value}) == [said]


def test_every_wrong_variable_is_named_and_others_are_not_looked_at() -> None:
    options = {"a": {"type": "int"}, "b": {"type": "list"}, "c": {"type": "dict"}}
    found = problems(options, {"a": "x", "b": "y", "other": object()})
    assert [problem.split()[0] for problem in found] == ["a", "b"]


@pytest.mark.parametrize("fact", ["stack_resolved", "model_source", "xpu_users", "audit_files", "kernel_packages"])
def test_a_node_that_sets_variables_by_facts_is_refused(fact: str) -> None:
    (problem,) = foreign_facts({fact: {}, "kernel_version": "#1", "xpu_gpus": [], 7: 1}, ["stack", "model", "kernel"])
    assert f"only you set: {fact}." in problem


def test_facts_of_other_names_are_nobodys_variables() -> None:
    assert (
        foreign_facts(["kernel", "kernel_version", "distribution", "xpu_gpu_families", "stacks"], ["stack", "kernel"])
        == []
    )
