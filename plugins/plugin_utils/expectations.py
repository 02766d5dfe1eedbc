"""The roles' expectations of a node, resolved for its audit.

Role ``kernel`` has its expectation in the variable ``kernel_expected`` of its ``vars/main.yml``, and so on. Ansible
resolves the variables; this code turns a role's files into checksums, and pins into packages, holds and files.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import yaml
from ansible_collections.xpu.fleet.plugins.module_utils.layers import LAYERS
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.zip_tree import build_archive
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import COLLECTION

_ROLES = {layer.name: layer.role for layer in LAYERS}
#: Renders a template of the roles, with variables beside those of the node.
Render = Callable[[str, Mapping[str, Any]], str]

_ROOT_FILE = {"mode": "0644", "owner": "root", "group": "root"}
#: The files that role pinned_packages writes for a package record: path and template.
_PIN_FILES = {
    "/etc/apt/preferences.d/xpu-fleet-{record}.pref": "pinned_packages/preferences.j2",
    "/etc/apt/apt.conf.d/52xpu-fleet-{record}": "pinned_packages/unattended-upgrades.conf.j2",
}


def variable_of(layer: str) -> str:
    """Return the name of the variable with the expectation of a layer's role."""
    return f"{_ROLES[layer]}_expected"


def expected_of(expected: Mapping[str, Any], render: Render) -> dict[str, Any]:
    """Return one layer's expectation with everything resolved that only the controller can read.

    - ``pins``: a list of packages kept at their versions, each with ``record``, ``versions``, ``not_upgraded``;
    - ``files``: beside ``sha256`` there can be ``template`` (``role/name``, with ``variables``) or ``archive`` (a
      directory below ``roles``, with ``package``). ``items`` give a file each, and replace ``{item}`` in its path.
      One whose ``when`` is false is expected to be absent.
    - ``settings``: a template of JSON with the expected values.
    """
    told = {key: value for key, value in expected.items() if key not in ("pins", "files", "settings")}
    files: dict[str, Any] = {}
    for pin in expected.get("pins", []):
        exact = {name: version for name, version in pin["versions"].items() if version}
        told["packages"] = {**told.get("packages", {}), **pin["versions"]}
        told["holds"] = [*told.get("holds", []), *exact]
        shown = {
            "__pinned_packages_exact": exact,
            "pinned_packages_not_upgraded": pin.get("not_upgraded", []),
        }
        for path, template in _PIN_FILES.items():
            files[path.format(record=pin["record"])] = {**_ROOT_FILE, "template": template, "variables": shown}
    files.update(expected.get("files", {}))
    if files:
        told.update({"files": {}, "absent": list(expected.get("absent", []))})
    for path, file in files.items():
        if not file.get("when", True):
            told["absent"].append(path)
            continue
        for item in file.get("items", [None]):
            told["files"][path.replace("{item}", str(item))] = _file(file, item, render)
    if "settings" in expected:
        told["settings"] = _settings(expected["settings"], render)
    return told


def _file(file: Mapping[str, Any], item: Any, render: Render) -> dict[str, Any]:
    told = {
        key: value
        for key, value in file.items()
        if key not in ("template", "variables", "archive", "package", "items", "when")
    }
    if "template" in file:
        text = render(file["template"], {**file.get("variables", {}), "item": item})
        told["sha256"] = hashlib.sha256(text.encode()).hexdigest()
    elif "archive" in file:
        told["sha256"] = archive_sha256(file["archive"], file["package"])
    return told


@functools.cache
def archive_sha256(directory: str, package: str) -> str:
    """Return the checksum of module zipapp's archive of a directory below ``roles``."""
    return hashlib.sha256(build_archive(COLLECTION / "roles" / directory, package)).hexdigest()


def _settings(settings: Mapping[str, Any], render: Render) -> dict[str, Any]:
    text = render(settings["template"], settings.get("variables", {}))
    return {"path": settings["path"], "values": yaml.safe_load(text)}
