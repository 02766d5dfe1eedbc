"""A role's expectation becomes the input of a node's audit."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.layers import ROLES
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.zip_tree import build_archive
from ansible_collections.xpu.fleet.plugins.plugin_utils.expectations import expected_of, variable_of
from ansible_collections.xpu.fleet.plugins.plugin_utils.role_variables import variables_of, with_roles

ROOT = Path(__file__).resolve().parents[4]


def render(template: str, variables: Mapping[str, Any]) -> str:
    """Return the template and its variables in place of the result."""
    return json.dumps([template, variables])


def digest(template: str, **variables: Any) -> str:
    """The checksum of a file that is rendered so."""
    return hashlib.sha256(render(template, variables).encode()).hexdigest()


def test_pins_are_packages_holds_and_the_files_that_keep_them() -> None:
    pins = [
        {"record": "modules", "versions": {"alpha": "1.0", "udev": ""}},
        {"record": "driver", "versions": {"beta": "2.0"}, "not_upgraded": ["gamma"]},
    ]
    expected = expected_of({"pins": pins, "module": "i915"}, render)
    assert (expected["module"], expected["holds"]) == ("i915", ["alpha", "beta"])
    assert expected["packages"] == {"alpha": "1.0", "udev": "", "beta": "2.0"}
    assert expected["files"]["/etc/apt/apt.conf.d/52xpu-fleet-driver"] == {
        **{"mode": "0644", "owner": "root", "group": "root"},
        "sha256": digest(
            "pinned_packages/unattended-upgrades.conf.j2",
            __pinned_packages_exact={"beta": "2.0"},
            pinned_packages_not_upgraded=["gamma"],
            item=None,
        ),
    }
    assert len(expected["files"]) == 4 and "pins" not in expected


def test_a_file_of_a_template_is_its_checksum_once_for_each_item() -> None:
    file = {"template": "a/b.j2", "items": [0, 1], "variables": {"x": 1}, "mode": "0600"}
    assert expected_of({"files": {"/etc/{item}.conf": file}}, render)["files"] == {
        f"/etc/{item}.conf": {"mode": "0600", "sha256": digest("a/b.j2", x=1, item=item)} for item in (0, 1)
    }


def test_a_file_that_is_not_wanted_is_absent() -> None:
    files = {"/etc/a": {"template": "a/b.j2", "when": False}, "/etc/b": {"mode": "0644", "when": True}}
    assert expected_of({"files": files, "absent": ["/etc/c"]}, render) == {
        "files": {"/etc/b": {"mode": "0644"}},
        "absent": ["/etc/c", "/etc/a"],
    }


def test_an_archive_is_the_checksum_of_what_module_zipapp_writes() -> None:
    file = {"archive": "inference/files/xpuserve", "package": "xpuserve", "mode": "0644"}
    archive = build_archive(ROOT / "roles/inference/files/xpuserve", "xpuserve")
    told = expected_of({"files": {"/opt/x.pyz": file}}, render)["files"]["/opt/x.pyz"]
    assert told == {"mode": "0644", "sha256": hashlib.sha256(archive).hexdigest()}


def test_settings_are_the_values_of_their_template() -> None:
    settings = {"path": "/etc/x.json", "template": "a/x.json.j2", "variables": {"y": 2}}
    assert expected_of({"settings": settings}, render) == {
        "settings": {"path": "/etc/x.json", "values": ["a/x.json.j2", {"y": 2}]}
    }


@pytest.mark.parametrize("expected", [{}, {"not_applicable": "a container"}])
def test_a_layer_that_needs_nothing_stays_so(expected: dict[str, Any]) -> None:
    assert expected_of(expected, render) == expected


def test_defaults_of_roles_give_way_to_a_nodes_variables_and_others_do_not() -> None:
    node = {"kernel_purge": False, "__oneapi_packages": {}, "mine": 1}
    variables = with_roles(node)
    assert (variables["kernel_purge"], variables["mine"], variables["inference_port"]) == (False, 1, 8000)
    assert variables["__oneapi_packages"] == variables_of("vars")["__oneapi_packages"] != {}
    assert set(map(variable_of, ROLES)) <= set(variables)
