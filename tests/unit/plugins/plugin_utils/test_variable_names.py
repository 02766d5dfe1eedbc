"""A name one letter from a variable is refused, and so is an unknown one with the collection's prefix."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.names import OTHER_WORDS, distance, public, unknown
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.rules import RULES
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import INTERNAL, fleet_options, roles

ROOT = next(path for path in Path(__file__).resolve().parents if (path / "galaxy.yml").exists())


def misspelt(name: str) -> Iterator[str]:
    """Every way to write a name with one letter left out, doubled, replaced, or changed with the next."""
    for i, letter in enumerate(name):
        before, after = name[:i], name[i + 1 :]
        yield before + after
        yield before + letter * 2 + after
        yield before + ("z" if letter != "z" else "y") + after
        if after and after[0] != letter:
            yield before + after[0] + letter + after[1:]


@pytest.mark.parametrize("name", sorted(public()))
def test_a_variable_with_any_letter_wrong_is_refused_with_the_right_name(name: str) -> None:
    wrong = {slip for slip in misspelt(name) if slip not in public() and slip not in INTERNAL}
    assert len(wrong) > 3 * len(name)
    # If a letter is between two variables, the message names both.
    assert {slip for slip, near in unknown(wrong).items() if name in near} == wrong


def test_every_variable_of_the_specifications_is_known() -> None:
    named = set()
    for path in ROOT.glob("roles/*/meta/argument_specs.yml"):
        for entry in yaml.safe_load(path.read_text())["argument_specs"].values():
            named |= set(entry.get("options", {}))
    assert len(named) > 70
    assert named <= public()
    assert unknown(public() | INTERNAL) == {}


def test_every_variable_of_the_fleet_that_is_read_anywhere_is_known() -> None:
    texts = [path.read_text() for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")]
    read = {name for text in texts for name in re.findall(r"(?<![\w./-])xpu_[a-z_0-9]+(?![\w*-])", text)}
    assert read - public() - INTERNAL - {"xpu_nodes_due", "xpu_nodes_agreed", "xpu_audit_exit"} == set()
    assert set(fleet_options()) - {"xpu_other_variables"} <= read


def assigned(value: Any) -> Iterator[str]:
    """The names that tasks give values to, by set_fact, register and vars."""
    if isinstance(value, list):
        for item in value:
            yield from assigned(item)
    elif isinstance(value, dict):
        for key, part in value.items():
            if key in ("ansible.builtin.set_fact", "vars") and isinstance(part, dict):
                yield from part
            if key == "register":
                yield part
            yield from assigned(part)


def test_what_our_own_tasks_set_is_no_mistake() -> None:
    files = [*ROOT.glob("roles/*/tasks/*.yml"), *ROOT.glob("playbooks/**/*.yml")]
    names = {name for path in files for name in assigned(yaml.safe_load(path.read_text()))}
    for path in [*ROOT.glob("roles/*/vars/main.yml"), *ROOT.glob("playbooks/vars/*.yml")]:
        names |= set(yaml.safe_load(path.read_text()))
    assert len(names) > 100
    assert unknown(names) == {}


@pytest.mark.parametrize("role", roles())
def test_a_name_that_begins_as_ours_do_is_refused_with_the_nearest(role: str) -> None:
    assert set(unknown([f"{role}_of_my_own"])) == {f"{role}_of_my_own"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("inference_prot", "inference_port"),
        ("inference_api_key", "inference_api_keys"),
        ("inference_client", "inference_clients"),
        ("xpu_rebot", "xpu_reboot"),
        ("xpu_Users", "xpu_users"),
        ("XPU_USERS", "xpu_users"),
        ("xpu-users", "xpu_users"),
        ("infrence_port", "inference_port"),
        ("models_name", "model_name"),
        ("xpu_user_names", "xpu_users"),
        ("gpu_drivers_dkms", "gpu_driver_dkms"),
    ],
)
def test_the_nearest_name_is_told(written: str, meant: str) -> None:
    assert unknown([written]) == {written: [meant]}


@pytest.mark.parametrize(
    "name",
    [
        *(f"{word}users" for word in OTHER_WORDS),
        *("gpu_hosts", "cpu_device", "slack_proxy", "users", "my_model_name", "kernels", "model", "inference"),
        *("ansible_user", "__kernel_wanted", "vault_model_token", "models", "port", "proxy", "gpu_driver", "xpu"),
    ],
)
def test_names_for_other_things_are_left_alone(name: str) -> None:
    assert unknown([name]) == {}


def test_names_of_ones_own_are_left_alone_where_they_are_listed() -> None:
    names = ["kernel_parameters", "model_zoo_url", "model_zoo_path", "stack_nme"]
    assert set(unknown(names, ["kernel_parameters", "model_zoo_*"])) == {"stack_nme"}


@pytest.mark.parametrize(
    ("first", "second", "letters"),
    [("abc", "abc", 0), ("abc", "abd", 1), ("abc", "acb", 1), ("", "abc", 3), ("ab", "cd", 2)],
)
def test_letters_that_differ_are_counted(first: str, second: str, letters: int) -> None:
    assert distance(first, second) == letters == distance(second, first)


def test_rules_are_for_variables_that_there_are() -> None:
    assert set(RULES) <= public()
