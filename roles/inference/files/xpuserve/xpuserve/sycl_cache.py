"""Clears SYCL's cache of compiled kernels after a change of their driver.

A cache of an earlier driver made cards fault (seen on a Max 1100 after an upgrade), and SYCL_CACHE_PERSISTENT keeps it
over upgrades.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

#: Packages whose versions the compiled kernels depend on: runtimes, compiler, loader, and the kernel's modules.
PACKAGES = frozenset(
    (
        *("intel-opencl-icd", "intel-level-zero-gpu", "libze-intel-gpu1", "level-zero", "libze1"),
        *("libigc1", "libigc2", "libigdfcl1", "libigdfcl2", "libigdgmm12", "intel-i915-dkms"),
    )
)
_MARK = ".driver"


def refresh(cache: Path, root: Path = Path("/")) -> bool:
    """Clear the cache if another driver filled it, and record the present one; return whether it did."""
    present, mark = fingerprint(root), cache / _MARK
    if _text(mark) == present:
        return False
    old = cache.is_dir() and any(path.name != _MARK for path in cache.iterdir())
    # The mark is written last: after an interruption, the next start clears the rest.
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    mark.write_text(present, encoding="ascii")
    return old


def fingerprint(root: Path = Path("/")) -> str:
    """Return a value that changes with the versions of the driver."""
    parts = [_text(root / f"sys/module/{name}/srcversion").strip() for name in ("i915", "xe")]
    for stanza in _text(root / "var/lib/dpkg/status").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in stanza.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Package") in PACKAGES:
            parts.append(f"{fields['Package']} {fields.get('Version', '')}")
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
