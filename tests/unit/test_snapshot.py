"""The snapshot of a test host detects changed content where the collection writes, and reads no large files."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SNAPSHOT = runpy.run_path(str(Path(__file__).resolve().parents[2] / "molecule/default/files/snapshot.py"))


@pytest.mark.parametrize(
    ("path", "size", "read"),
    [
        ("/etc/xpuserve/config.json", 900, True),
        ("/usr/local/bin/xpuserve", 200, True),
        ("/opt/xpu/xpuserve.pyz", 200_000, True),
        ("/opt/xpu/engines/openvino/pyvenv.cfg", 200, True),
        ("/opt/xpu/engines/openvino/lib/python3.13/site-packages/alpha.py", 200, False),
        ("/boot/grub/grub.cfg", 9000, True),
        ("/boot/vmlinuz-6.1.0", 8_000_000, False),
        ("/usr/bin/env", 9000, False),
    ],
)
def test_content_counts_where_the_collection_writes(path: str, size: int, read: bool) -> None:
    assert SNAPSHOT["is_read"](Path(path), size) == read
