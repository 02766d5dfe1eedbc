"""The structure of the service: allowed imports, and one name and one default for each setting."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from xpuserve.settings import Settings

ROLE = Path(__file__).parents[3] / "roles/inference"
PACKAGE = ROLE / "files/xpuserve/xpuserve"
#: What a package may import of the service beside itself and modules that are in none.
MAY_IMPORT: dict[str, set[str]] = {"engine": set(), "backends": {"engine"}, "api": {"engine"}}
#: Settings that are not a variable of the role `inference` of the same name.
OTHERS = {
    *("engine", "device", "model", "api_keys_file", "cache_dir", "prefill_tokens"),
    *("tls_certificate", "tls_key", "engine_process"),
}


def imports(file: Path) -> set[str]:
    """The packages of the service that a file imports, at whatever place."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return {name.split(".")[1] for name in found if name.startswith("xpuserve.")} & MAY_IMPORT.keys()


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_each_other_in_one_direction(package: str) -> None:
    files = list((PACKAGE / package).glob("*.py"))
    assert files
    wrong = {file.name: found for file in files if (found := imports(file) - MAY_IMPORT[package] - {package})}
    assert wrong == {}


def defaults() -> dict[str, Any]:
    plain = Settings.model_construct().model_dump(mode="json", exclude_none=True)
    return {name: plain[name] for name in Settings.model_fields if name not in OTHERS}


def test_a_setting_has_the_same_default_in_the_role_and_in_the_service() -> None:
    role = yaml.safe_load((ROLE / "defaults/main.yml").read_text(encoding="utf-8"))
    assert {name: role[f"inference_{name}"] for name in defaults()} == defaults()


def test_a_setting_has_the_same_name_in_the_role_and_in_the_service() -> None:
    template = (ROLE / "templates/config.json.j2").read_text(encoding="utf-8")
    written = dict(re.findall(r'^ "(\w+)": \{\{ inference_(\w+)', template, re.MULTILINE))
    assert written == {name: name for name in defaults()}
