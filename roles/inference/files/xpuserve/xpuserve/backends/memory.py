"""How much memory there is, and how libraries say that it does not suffice."""

from __future__ import annotations

from pathlib import Path

# PyTorch, its Intel extension, OpenVINO, and what they stand on say it in many ways.
_OUT_OF_MEMORY = (
    *("out of memory", "out of device memory", "out_of_device_memory", "out_of_host_memory", "out_of_resources"),
    *("can't allocate memory", "not enough memory", "failed to allocate", "bad_alloc", "bad alloc"),
    *("can not allocate", "cannot allocate", "exceeded max size of memory"),
)


def is_exhausted(error: BaseException) -> bool:
    """Whether an error of a library says that memory does not suffice."""
    return isinstance(error, MemoryError) or any(words in str(error).lower() for words in _OUT_OF_MEMORY)


def available() -> int:
    """Bytes that this machine can give, as the kernel estimates them; 0 where it does not say."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        name, _between, kib = line.partition(":")
        if name == "MemAvailable":
            return int(kib.split()[0]) * 1024
    return 0
