"""Files are restored once; the next run completes an interrupted one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.packages.record import read_files, remember_file
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module


class Found:
    """A file that was there and one that was not, both written over for record repository."""

    def __init__(self, directory: Path) -> None:
        self.records = directory / "found"
        self.old, self.new = directory / "etc/old.list", directory / "etc/new.list"
        self.old.parent.mkdir()
        self.old.write_text("deb http://archive.example.com jammy main\n")
        self.old.chmod(0o640)
        for path in (self.old, self.new):
            remember_file(path, "repository", self.records)
            path.write_text("of the collection\n")

    def run(self, *, check: bool = False, record: str = "repository") -> dict[str, Any]:
        return run_module("file_restore", check=check, record=record, directory=str(self.records))


@pytest.fixture
def found(tmp_path: Path) -> Found:
    return Found(tmp_path)


def test_what_was_there_comes_back_and_the_rest_goes(found: Found) -> None:
    foreseen = found.run(check=True)
    assert foreseen["changed"] and found.new.exists() and "deb" not in found.old.read_text()
    done = found.run()
    assert (done["restored"], done["removed"]) == ([str(found.old)], [str(found.new)]) and done["diff"] == foreseen[
        "diff"
    ]
    assert found.old.read_text().startswith("deb ") and found.old.stat().st_mode & 0o777 == 0o640
    assert not found.new.exists() and read_files(found.records) == {}
    assert not found.run()["changed"]


def test_another_layers_files_stay(found: Found) -> None:
    assert not found.run(record="oneapi")["changed"] and found.new.exists()


def test_a_run_that_was_cut_off_is_finished(found: Found) -> None:
    copy = read_files(found.records)["repository"][str(found.old)]
    found.old.write_bytes(Path(copy).read_bytes())
    Path(copy).unlink()  # the copy was put back, the record not yet written
    assert found.run()["changed"] and found.old.read_text().startswith("deb ") and not found.new.exists()


def test_a_record_that_cannot_be_read_is_an_error(found: Found) -> None:
    (found.records / "files.json").write_text("{")
    refused = found.run()
    assert refused["failed"] and "files.json, a rollback record, cannot be read" in refused["msg"]
    assert found.new.exists()
