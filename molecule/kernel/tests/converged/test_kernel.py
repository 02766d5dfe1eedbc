"""The machine runs the stack's kernel and driver, by its own default, and nothing of the trial is left."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from kernel.faults.state import CARD, release_of, stack, unconverged, wanted
from rig.machine import Machine

State = dict[str, Any]


@pytest.fixture(scope="session")
def boot(converged: State) -> State:
    """The machine's boot state."""
    found: State = converged["boot"]
    return found


@pytest.fixture(scope="session")
def installed(converged: State) -> dict[str, str]:
    """Installed packages and their versions."""
    found: dict[str, str] = converged["packages"]["installed"]
    return found


def test_it_runs_the_kernel_of_the_stack(boot: State) -> None:
    assert boot["kernel"] == wanted() == "5.19.0-41-generic"
    assert boot["system"] == "running", boot["failed"]


def test_it_was_rebooted_twice(boot: State, bare: Path, machine: Machine) -> None:
    before = json.loads(bare.read_text())["boot"]
    assert boot["boot_id"] != before["boot_id"]
    kernels = re.findall(r"Linux version (\S+)", Path(machine.console).read_text(errors="replace"))
    assert kernels[-3:] == [before["kernel"], wanted(), wanted()]


def test_grub_starts_it_by_its_id_and_nothing_of_the_trial_is_left(boot: State) -> None:
    assert len(boot["default"]) == 1
    assert re.fullmatch(rf"(.*>)?gnulinux-{re.escape(wanted())}-advanced-[0-9a-f-]+", boot["default"][0])
    assert not [line for line in boot["environment"] if re.match("next_entry=.", line)]
    assert (boot["panic"], boot["armed"], boot["trial"]) == ([], [], "")
    assert boot["timer"] == "inactive"
    assert "panic=" not in boot["command_line"]


def test_its_packages_are_there_and_held_and_newer_ones_are_gone(converged: State, installed: dict[str, str]) -> None:
    kernel = stack()["kernel"]
    assert {name: installed.get(name) for name in kernel["packages"]} == kernel["packages"]
    assert set(kernel["packages"]) <= set(converged["packages"]["held"])
    assert not set(kernel["metapackages"]) & set(installed)
    assert {release_of(name) for name in installed} == {"", wanted()}


def test_the_modules_are_built_for_it_and_drive_the_card(converged: State) -> None:
    gpu, driver = converged["gpu"], stack()["driver"]
    for entry in driver["dkms"]:
        built = rf"{re.escape(entry['module'])}/\S+, {re.escape(wanted())}, x86_64: installed"
        assert any(re.match(built, line) for line in converged["packages"]["dkms"]), converged["packages"]["dkms"]
    assert gpu["drivers"] == {CARD: "i915"}
    assert gpu["module"].startswith(f"/lib/modules/{wanted()}/updates/")
    assert gpu["magic"] == wanted()
    assert gpu["loaded"] == gpu["on_disk"] != ""


def test_a_person_of_the_render_group_opens_the_render_node(converged: State) -> None:
    render = converged["gpu"]["render"]
    assert render["character_device"]
    assert (render["number"], render["group"]) == ([226, 128], "render")
    assert render["xpu_opens_it"]


def test_it_is_what_the_faults_have_to_end_with(converged: State) -> None:
    assert unconverged(converged, access=True) == []
