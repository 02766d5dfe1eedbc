"""Pin processes to processors."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def allowed() -> list[int]:
    """The processors that this process may use."""
    return sorted(os.sched_getaffinity(0))


def children(pid: int) -> list[int]:
    """The processes that a process started."""
    files = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for file in files for child in file.read_text(encoding="ascii").split()]


@contextmanager
def apart(pid: int) -> Iterator[None]:
    """Give the children of a process the first processor, and that process and its client (this one) the second."""
    every = os.sched_getaffinity(0)
    first, second, *_ = sorted(every)
    for child in children(pid):
        _bind(child, first)
    _bind(pid, second)
    os.sched_setaffinity(0, {second})
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def _bind(pid: int, core: int) -> None:
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
