"""Variables of another type than the role declares are refused."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import as_list, foreign_facts, problems


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ({"type": "str"}, "text"),
        ({"type": "str"}, 11),
        ({}, "text"),
        ({"type": "int"}, 8000),
        ({"type": "int"}, "8000"),
        ({"type": "bool"}, False),
        ({"type": "bool"}, "yes"),
        ({"type": "bool"}, "False"),
        ({"type": "bool"}, 1),
        ({"type": "float"}, "1.5"),
        ({"type": "list", "elements": "int"}, "1, 2"),
        ({"type": "list", "elements": "str"}, "['a', 'b']"),
        ({"choices": ["", "a"]}, "a"),
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
        ({"type": "bool"}, "perhaps", "name must be true or false, but is a string: 'perhaps'."),
        ({"type": "bool"}, 2, "name must be true or false, but is a number: 2."),
        ({"type": "list"}, "['a'", "name must be a list, but is a string: \"['a'\"."),
        ({"type": "list"}, 5, "name must be a list, but is a number: 5."),
        ({"type": "float"}, "fast", "name must be a number, but is a string: 'fast'."),
        ({"type": "list", "elements": "int"}, "1,b", "name[1] must be a whole number, but is a string: 'b'."),
        ({"type": "list", "elements": "str", "no_log": True}, [{}], "name[0] must be a string, but is a mapping."),
        ({"choices": ["", "a", "b"]}, "c", "name must be one of a, b, but is a string: 'c'."),
        (
            {"choices": ["on", "off"]},
            True,
            "name must be one of on, off, but is a boolean: True (in YAML, quote yes, no, on and off).",
        ),
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
    found = problems(options, {"a": "x", "b": 5, "other": object()})
    assert [problem.split()[0] for problem in found] == ["a", "b"]


@pytest.mark.parametrize("fact", ["stack_resolved", "model_source", "xpu_users", "audit_files", "kernel_packages"])
def test_a_node_that_sets_variables_by_facts_is_refused(fact: str) -> None:
    (problem,) = foreign_facts({fact: {}, "kernel_version": "#1", "xpu_gpus": [], 7: 1}, ["stack", "model", "kernel"])
    assert f"your variables: {fact}." in problem


def test_facts_of_other_names_are_nobodys_variables() -> None:
    assert (
        foreign_facts(["kernel", "kernel_version", "distribution", "xpu_gpu_families", "stacks"], ["stack", "kernel"])
        == []
    )


def test_what_stands_for_a_list_becomes_one() -> None:
    assert as_list(["a"]) == ["a"]
    assert as_list("a, b,") == ["a", "b"]
    assert as_list("['a, b', 'c']") == ["a, b", "c"]
    assert as_list("") == []
    assert as_list("[a") is None
    assert as_list({"a": 1}) is None
