"""A run that would do nothing, or end in its middle, is refused with status 2 and the valid choices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.xpu.fleet.plugins.module_utils.layers import NAMES
from ansible_collections.xpu.fleet.plugins.plugin_utils.command_line import problem
from ansible_collections.xpu.fleet.tests.unit.playbook_run import NOWHERE, ROOT, inventory, playbook

TAGS = "Tags: platform, repository, kernel, driver, access, oneapi, python, model, service."
PLAYBOOKS = ("site", "audit", "plan", "gpus", "rollback", "upgrade")


def asked(tags: str = "all", skip: str = "", **more: Any) -> dict[str, Any]:
    """Arguments of ansible-playbook as Ansible keeps them."""
    return {"args": ("site.yml",), "tags": tags.split(","), "skip_tags": skip.split(",") if skip else [], **more}


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (asked("kernl"), f"--tags kernl: unknown tag. Did you mean kernel? {TAGS}"),
        (asked("kernel,xyz"), f"--tags xyz: unknown tag. {TAGS}"),
        (asked(skip="modle"), f"--skip-tags modle: unknown tag. Did you mean model? {TAGS}"),
        (asked("untagged"), f"--tags untagged chooses nothing. {TAGS}"),
        (asked("always"), f"--tags always chooses nothing. {TAGS}"),
        (asked("kernel", "kernel"), f"--tags kernel --skip-tags kernel chooses nothing. {TAGS}"),
        # The service does not go without the model.
        (asked("service", "model"), f"--tags service --skip-tags model chooses nothing. {TAGS}"),
        (asked(skip="always"), f"--skip-tags always chooses nothing. {TAGS}"),
        (asked(skip="all"), f"--skip-tags all chooses nothing. {TAGS}"),
        (asked(skip=",".join(NAMES)), f"--skip-tags {','.join(NAMES)} chooses nothing. {TAGS}"),
    ],
)
def test_tags_that_are_none_or_choose_nothing_are_told_with_those_that_there_are(
    arguments: dict[str, Any], said: str
) -> None:
    assert problem(arguments, NAMES) == said


@pytest.mark.parametrize(
    "arguments",
    [asked(), asked("kernel"), asked("service,model"), asked("platform"), asked(skip="service"), asked("tagged")],
)
def test_tags_that_choose_something_are_taken(arguments: dict[str, Any]) -> None:
    assert problem(arguments, NAMES) == ""


@pytest.mark.parametrize("option", [{"step": True}, {"start_at_task": "Ensure the layers are in order"}])
def test_a_run_is_not_begun_in_its_middle(option: dict[str, Any]) -> None:
    (name,) = option
    assert problem(asked(**option), NAMES).startswith(f"--{name.replace('_', '-')} cannot be used here: ")


@pytest.mark.parametrize("place", ["site.yml", "./playbooks/audit.yml", "xpu.fleet.site", f"{ROOT}/site.yml"])
def test_a_playbook_of_the_collection_is_known_however_it_is_named(place: str) -> None:
    assert problem(asked("kernl", args=(place,)), NAMES)


def test_a_playbook_of_ones_own_has_tags_of_its_own(tmp_path: Path) -> None:
    assert problem(asked("web", args=(str(tmp_path / "site.yml"),)), NAMES) == ""
    assert problem(asked("web", args=("site.yml", str(tmp_path / "mine.yml"))), NAMES) == ""


def test_a_playbook_without_tags_says_so() -> None:
    assert problem(asked("kernel"), []) == "This playbook has no tags: leave out kernel."
    assert problem(asked(), []) == ""


@pytest.mark.parametrize("name", PLAYBOOKS)
def test_every_playbook_refuses_such_a_run_before_it_begins(name: str, tmp_path: Path) -> None:
    run = playbook(name, "-i", inventory(tmp_path, {"a": {}}), "--tags", "kernl")
    assert run.status == 2, run.output
    assert "kernl" in run.text and "PLAY" not in run.output


@pytest.mark.parametrize("name", ["site", "audit", "rollback"])
def test_the_layers_tags_are_listed(name: str, tmp_path: Path) -> None:
    run = playbook(name, "-i", inventory(tmp_path, {"a": {}}), "--list-tags")
    assert run.status == 0
    assert set(NAMES) - {"platform"} <= set(run.text.replace("]", ",").replace("[", " ").replace(",", " ").split())


def test_a_playbook_that_imports_ours_runs_with_tags_of_its_own(tmp_path: Path) -> None:
    own = {
        "hosts": "a",
        "gather_facts": False,
        "tags": ["web"],
        "tasks": [{"ansible.builtin.debug": {"msg": "served"}}],
    }
    plays = [{"ansible.builtin.import_playbook": "xpu.fleet.gpus"}, own]
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(plays))
    run = playbook(str(tmp_path / "mine"), "-i", inventory(tmp_path, {"a": NOWHERE}), "--tags", "web")
    assert run.status == 0, run.output
    assert "served" in run.output


@pytest.mark.parametrize("option", ["syntax", "listtags", "listtasks"])
def test_what_only_shows_a_playbook_needs_no_inventory(option: str, tmp_path: Path) -> None:
    run = asked(inventory=[str(tmp_path / "hosts")])
    assert problem({**run, option: True}, NAMES) == ""
    assert "No inventory at" in problem(run, NAMES)
