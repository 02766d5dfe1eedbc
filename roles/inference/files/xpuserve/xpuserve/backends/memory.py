"""Free memory, and how libraries report a lack of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

# PyTorch, its Intel extension, OpenVINO, and their runtimes report it in many ways.
_OUT_OF_MEMORY = (
    *("out of memory", "out of device memory", "out_of_device_memory", "out_of_host_memory", "out_of_resources"),
    *("can't allocate memory", "not enough memory", "failed to allocate", "bad_alloc", "bad alloc"),
    *("can not allocate", "cannot allocate", "exceeded max size of memory"),
)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error of a library means lack of memory."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def available(root: Path = Path("/")) -> int:
    """Bytes available on this machine, by the kernel's estimate and the unit's limits.

    0 if the kernel does not tell.
    """
    for line in (root / "proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _between, kib = line.partition(":")
        if name == "MemAvailable":
            return max(1, min([int(kib.split()[0]) * 1024, *_left(root)]))
    return 0


def _left(root: Path) -> Iterator[int]:
    """The remaining bytes of each control group of this process; the page cache does not count."""
    top = root / "sys/fs/cgroup"
    for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
        if not line.startswith("0::/"):  # version 2
            continue
        group = top / line[len("0::/") :]
        for place in (group, *group.parents):
            if place == top:
                break
            try:
                limit, current, stat = (
                    (place / f"memory.{name}").read_text(encoding="ascii") for name in ("max", "current", "stat")
                )
            except OSError:  # a container sees only its own groups
                break
            files = next((int(each.split()[1]) for each in stat.splitlines() if each.startswith("inactive_file ")), 0)
            if limit.strip() != "max":
                yield int(limit) - int(current) + files
