"""What can be known before the first change is refused before it.

Every place of a role that refuses, and every module that may, is in a preflight, or is named here: with the preflight
that refuses the same earlier, or with the reason why nobody can know it before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
REFUSES = ("ansible.builtin.assert", "ansible.builtin.fail")
#: Files whose tasks run before any change, or change nothing; a rollback is explicit anyway.
EARLY = ("preflight", "resolve", "choose", "plan", "read_boot", "serving", "rollback", "withdraw", "restore")


@dataclass(frozen=True)
class Earlier:
    """A file that refuses the same before the first change, and words of the refusal."""

    path: str
    words: str


@dataclass(frozen=True)
class Unknowable:
    """Why it can't be known before something was changed."""

    why: str


CHECKS = "plugins/module_utils/stack/checks.py"
#: By role and file of tasks.
PLACES: dict[str, Earlier | Unknowable] = {
    "gateway/run": Unknowable("HAProxy's own configuration check ran before; what it does at run time its log tells"),
    "gpu_driver/built": Unknowable(
        "whether a module compiles is known once its source is there; it is built before a boot"
    ),
    "gpu_driver/holds": Unknowable(
        "a driver holds a card once its kernel runs; the kernels that can are checked before"
    ),
    "gpu_driver/install": Unknowable("it repeats what apt said; what apt would do was simulated before"),
    "gpu_driver/load": Unknowable("which module an initramfs loads is seen after a boot"),
    "gpu_driver/proof": Unknowable("a module is loaded after the boot that the proof follows"),
    "gpu_driver/show": Earlier(CHECKS, "No driver is bound to"),
    "graphics_repository/needed": Unknowable("it is for plays of one's own that leave the role out; site.yml does not"),
    "inference/devices": Earlier(CHECKS, "No driver can bind to"),
    "inference/main": Unknowable("it is for plays of one's own that leave roles out; site.yml does not"),
    "inference/run": Unknowable("it shows what the service said; engine and model run for the first time there"),
    "kernel/boot_default": Unknowable("what the firmware boots is seen after a boot"),
    "kernel/boot_once": Unknowable("whether a kernel comes up is seen after a boot; the node has returned by then"),
    "node_reboot/consent": Unknowable("a reboot that is not allowed stops what has been prepared, as xpu_reboot says"),
    "node_reboot/reboot": Unknowable("whether a node reboots is seen when it is told to"),
    "python_runtime/miniconda_create": Unknowable("what a channel sends has its digest once it is there"),
}
APT = "plugins/modules/apt_pins.py"
#: Modules of later roles that can refuse.
MODULES: dict[str, Earlier | Unknowable] = {
    "apt_holds": Unknowable(
        "dpkg is asked to keep what it has; it refuses where it is damaged, which is repaired first"
    ),
    "apt_keyring": Earlier(APT, "trusted_keys"),
    "apt_pins": Earlier("roles/stack/tasks/preflight.yml", "xpu.fleet.apt_pins"),
    "apt_source": Earlier("roles/graphics_repository/tasks/preflight.yml", "xpu.fleet.apt_source"),
    "boot_kernel": Earlier("roles/kernel/tasks/preflight.yml", "boot.problems"),
    "dpkg_repair": Unknowable("what keeps dpkg from finishing may be what the next transaction replaces"),
    "gpu_info": Earlier("plugins/action/resolve_stack.py", "gpu_info"),
    "kernel_candidate": Earlier("roles/kernel/tasks/preflight.yml", "xpu.fleet.kernel_candidate"),
    "kernel_purge": Earlier("roles/kernel/tasks/plan.yml", "xpu.fleet.kernel_purge"),
    "kernel_repair": Unknowable("files are compared once their packages are there"),
    "model_files": Earlier("roles/model/tasks/preflight.yml", "xpu.fleet.model_files"),
    "model_low_bit": Unknowable("it loads the weights with the engine that this run installs"),
    "node_activity": Unknowable("who uses a node is asked when it is to be rebooted"),
    "oneapi_environment": Unknowable("it runs the script of the oneAPI that this run installs"),
    "outside_probe": Unknowable("whether a service is reached from outside is seen once it listens"),
    "package_record": Unknowable("it writes down what dpkg has"),
    "python_environment": Earlier("roles/python_runtime/tasks/preflight.yml", "xpu.fleet.python_environment"),
    "service_filter": Earlier("roles/inference/tasks/preflight.yml", "xpu.fleet.service_filter"),
    "service_instances": Unknowable("it asks systemd for the instances that are there"),
    "zipapp": Unknowable("it writes the service's code, which is in this collection"),
}


def tasks_of(path: Path) -> Iterator[dict[str, Any]]:
    """Yield every task of a file, those in blocks too."""
    waiting = list(yaml.safe_load(path.read_text(encoding="utf-8")) or ())
    while waiting:
        task = waiting.pop(0)
        yield task
        for part in ("block", "rescue", "always"):
            waiting += task.get(part, [])


def late_files() -> Iterator[Path]:
    for path in sorted(ROOT.glob("roles/*/tasks/*.yml")):
        if path.stem not in EARLY and not path.stem.endswith("_rollback"):
            yield path


def refusing() -> set[str]:
    return {
        f"{path.parts[-3]}/{path.stem}"
        for path in late_files()
        for task in tasks_of(path)
        if any(module in task for module in REFUSES)
    }


def used() -> set[str]:
    keys = {key for path in late_files() for task in tasks_of(path) for key in task}
    return {key.removeprefix("xpu.fleet.") for key in keys if key.startswith("xpu.fleet.")}


HELP = "say in PLACES or MODULES which preflight refuses it earlier, or why none can"


def test_every_place_that_refuses_late_is_named() -> None:
    assert refusing() == set(PLACES), HELP


def test_every_module_that_may_refuse_late_is_named() -> None:
    assert used() == set(MODULES), HELP


@pytest.mark.parametrize("name", sorted({**PLACES, **MODULES}))
def test_the_preflight_that_refuses_earlier_is_there_or_it_is_said_why_not(name: str) -> None:
    answer = {**PLACES, **MODULES}[name]
    if isinstance(answer, Earlier):
        assert answer.words in (ROOT / answer.path).read_text(encoding="utf-8")
    else:
        assert len(answer.why.split()) > 4


def test_every_role_that_site_yml_runs_is_asked_first() -> None:
    """Each role's preflight runs before the first role changes anything."""
    asked = [
        task for task in tasks_of(ROOT / "playbooks/tasks/preflight.yml") if "ansible.builtin.include_role" in task
    ]
    first = {task["ansible.builtin.include_role"]["name"] for task in asked}
    assert all(task["ansible.builtin.include_role"]["tasks_from"] == "preflight" for task in asked)
    runs = {
        task["ansible.builtin.include_role"]["name"]
        for task in tasks_of(ROOT / "playbooks/tasks/provision.yml")
        if "ansible.builtin.include_role" in task
    }
    assert runs - first <= {"xpu.fleet.pinned_packages"}  # it repairs an interruption, and has nothing to refuse
