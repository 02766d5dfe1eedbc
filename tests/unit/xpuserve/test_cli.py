"""The command line, in the archive that a node has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import xpuserve
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.zip_tree import build_archive

SOURCE = Path(xpuserve.__file__).parents[1]


def test_the_engine_is_started_from_the_archive_that_the_service_is_in(tmp_path: Path) -> None:
    """As on a node: isolated, with no other way to the package than the archive."""
    archive = tmp_path / "xpuserve.pyz"
    archive.write_bytes(build_archive(SOURCE, "xpuserve"))
    script = "import sys; sys.path.insert(0, sys.argv[1]); from xpuserve import cli; print(*cli._myself(), sep='\\n')"
    asked = [sys.executable, "-I", "-c", script, str(archive)]
    started = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    assert started == [sys.executable, "-I", str(archive)]
    subprocess.run([*started, "engine", "--help"], capture_output=True, check=True)
