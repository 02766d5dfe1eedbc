"""The service's archive: equal trees give equal bytes, and Python runs it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.zip_tree import TreeError, build_archive, list_archive


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "service"
    for name, text in {
        "pyproject.toml": "[project]\n",
        "app/__init__.py": "",
        "app/__main__.py": "import sys\nfrom app.words import WORD\nprint(WORD, sys.argv[1])\n",
        "app/words.py": 'WORD = "hello"\n',
        "app/page.html": "<p>",
        "app/__pycache__/words.pyc": "x",
        "app/tests/test_words.py": "x",
        "notes/readme.txt": "x",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_only_packages_go_in(tree: Path) -> None:
    names = zipfile.ZipFile(BytesIO(build_archive(tree, "app"))).namelist()
    assert names == ["__main__.py", "app/__init__.py", "app/__main__.py", "app/page.html", "app/words.py"]


def test_times_and_modes_of_the_files_do_not_matter(tree: Path) -> None:
    before = build_archive(tree, "app")
    os.utime(tree / "app/words.py", (1, 1))
    (tree / "app/words.py").chmod(0o600)
    assert build_archive(tree, "app") == before
    (tree / "app/words.py").write_text('WORD = "bye"\n')
    assert build_archive(tree, "app") != before
    assert list_archive(build_archive(tree, "app")) != list_archive(before)


def test_python_runs_it_in_isolation(tree: Path, tmp_path: Path) -> None:
    archive = tmp_path / "app.pyz"
    archive.write_bytes(build_archive(tree, "app"))
    done = subprocess.run([sys.executable, "-I", archive, "world"], capture_output=True, text=True, check=True)
    assert done.stdout == "hello world\n"


def test_what_is_no_application_is_refused(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(TreeError, match="is not a directory"):
        build_archive(tmp_path / "absent")
    with pytest.raises(TreeError, match="no Python package"):
        build_archive(tree / "notes")
    with pytest.raises(TreeError, match=r"has no gone/__main__\.py"):
        build_archive(tree, "gone")


def test_a_file_that_is_no_archive_lists_as_nothing() -> None:
    assert list_archive(b"text") == ""
