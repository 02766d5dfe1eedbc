"""A repository's file is written once, and conflicting sources are removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

CONTENT = """\
# Managed by Ansible (xpu.fleet).
Types: deb
URIs: https://mirror.example.com/graphics/ubuntu
Suites: jammy
Components: arc
Signed-By: /usr/share/keyrings/graphics.gpg
"""


@pytest.fixture
def options(tmp_path: Path) -> dict[str, Any]:
    repository = {
        "uris": ["https://mirror.example.com/graphics/ubuntu"],
        "suites": ["jammy"],
        "components": ["arc"],
        "keyring": "/usr/share/keyrings/graphics.gpg",
        "sources": str(tmp_path / "etc/graphics.sources"),
    }
    return {"repository": repository, "directory": str(tmp_path / "found")}


def test_the_file_is_written_once_and_readable_for_all(options: dict[str, Any]) -> None:
    path = Path(options["repository"]["sources"])
    foreseen = run_module("apt_source", check=True, **options)
    assert foreseen["changed"] and not path.exists()
    assert foreseen["diff"][0]["after"] == CONTENT
    assert run_module("apt_source", **options)["changed"]
    assert path.read_text() == CONTENT and path.stat().st_mode & 0o777 == 0o644
    assert not run_module("apt_source", **options)["changed"]
    path.chmod(0o600)
    assert run_module("apt_source", **options)["changed"] and path.stat().st_mode & 0o777 == 0o644


def test_it_is_not_written_where_only_leftovers_are_to_go(options: dict[str, Any]) -> None:
    assert not run_module("apt_source", write=False, **options)["changed"]
    assert not Path(options["repository"]["sources"]).exists()


def test_what_was_there_is_put_back(options: dict[str, Any], tmp_path: Path) -> None:
    own, other = Path(options["repository"]["sources"]), tmp_path / "etc/other.sources"
    own.parent.mkdir()
    own.write_text("Types: deb\n")
    own.chmod(0o640)
    options["directory"] = str(tmp_path / "found")
    run_module("apt_source", record="one", **options)
    assert own.read_text() == CONTENT
    options["repository"]["sources"] = str(other)
    run_module("apt_source", record="two", **options)
    where = {"directory": options["directory"]}
    foreseen = run_module("file_restore", check=True, record="one", **where)
    assert foreseen["changed"] and foreseen["restored"] == [str(own)] and own.read_text() == CONTENT
    assert run_module("file_restore", record="one", **where)["changed"]
    assert own.read_text() == "Types: deb\n" and own.stat().st_mode & 0o777 == 0o640
    assert not run_module("file_restore", record="one", **where)["changed"]
    assert run_module("file_restore", record="two", **where)["removed"] == [str(other)]
    assert not other.exists() and list((tmp_path / "found").rglob("*.json")) == []


def test_what_an_earlier_version_wrote_was_not_found(options: dict[str, Any]) -> None:
    path = Path(options["repository"]["sources"])
    path.parent.mkdir()
    path.write_text(CONTENT.replace("jammy", "focal"))
    run_module("apt_source", **options)
    assert run_module("file_restore", record="repository", directory=options["directory"])["removed"] == [str(path)]


def test_a_mirrors_password_is_not_shown(options: dict[str, Any]) -> None:
    options["repository"]["uris"] = ["https://user:pa55word@mirror.example.com/ubuntu"]
    (shown,) = run_module("apt_source", check=True, **options)["diff"]
    assert "https://***@mirror.example.com/ubuntu" in shown["after"] and "pa55word" not in str(shown)


def test_an_unknown_key_of_a_repository_is_an_error(options: dict[str, Any]) -> None:
    options["repository"]["url"] = "x"
    assert "unknown key 'url'" in run_module("apt_source", **options)["msg"]


def test_of_a_superseded_file_the_sources_of_others_stay_and_that_is_told(
    options: dict[str, Any], tmp_path: Path
) -> None:
    etc = tmp_path / "etc/apt"
    (etc / "sources.list.d").mkdir(parents=True)
    mixed = etc / "sources.list.d/vendor.list"
    mixed.write_text("deb https://mirror.example.com/graphics/ubuntu jammy arc\ndeb https://else.example.org x main\n")
    mixed.chmod(0o640)
    options["repository"]["superseded"] = [str(mixed)]
    before, after = mixed.read_text(), "deb https://else.example.org x main\n"
    foreseen = run_module("apt_source", check=True, at=tmp_path, **options)
    assert foreseen["changed"] and foreseen["edited"] == [str(mixed)] and mixed.read_text() == before
    assert [(part["before"], part["after"]) for part in foreseen["diff"]][1] == (before, after)
    done = run_module("apt_source", at=tmp_path, **options)
    assert done["changed"] and done["removed"] == [] and mixed.read_text() == after
    assert mixed.stat().st_mode & 0o777 == 0o640
    assert "the others stay (https://else.example.org)" in str(done["warnings"])
    assert not run_module("apt_source", at=tmp_path, **options)["changed"]
    assert run_module("file_restore", record="repository", directory=options["directory"])["changed"]
    assert mixed.read_text() == before
