"""The memory that an engine may take."""

from __future__ import annotations

from pathlib import Path

import pytest
from xpuserve.backends import memory

GIB = 2**30


@pytest.mark.parametrize(
    ("unit", "slice_", "left"),
    [
        (("max", 3, 0), ("max", 5, 0), 16),
        (("8", 3, 0), ("max", 5, 0), 5),
        (("8", 3, 2), ("max", 5, 0), 7),  # the page cache is freed on demand
        (("8", 3, 0), ("7", 5, 0), 2),
        (("4", 5, 0), ("max", 5, 0), 0),
    ],
)
def test_the_limits_of_a_unit_and_its_slice_count(
    tmp_path: Path, unit: tuple[str, int, int], slice_: tuple[str, int, int], left: int
) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable: {16 * GIB // 1024} kB\n")
    (tmp_path / "proc/self/cgroup").write_text("0::/system.slice/xpuserve@0.service\n")
    for place, (limit, current, files) in (("system.slice", slice_), ("system.slice/xpuserve@0.service", unit)):
        folder = tmp_path / "sys/fs/cgroup" / place
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(f"{limit if limit == 'max' else int(limit) * GIB}\n")
        (folder / "memory.current").write_text(f"{current * GIB}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files * GIB}\n")
    assert memory.available(tmp_path) == max(1, left * GIB)


@pytest.mark.parametrize("groups", ["1:memory:/x\n", "0::/not/seen/here\n", "0::/\n"])
def test_without_a_limit_that_is_seen_the_machines_memory_counts(tmp_path: Path, groups: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemAvailable: 5 kB\n")
    (tmp_path / "proc/self/cgroup").write_text(groups)
    assert memory.available(tmp_path) == 5 * 1024
