"""Choose the BigDL library for CPUs that uses most of this CPU's instructions."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

VARIABLE = "LLAMA_CPP_LIB"
# The widest first, with their required instructions.
LIBRARIES = {
    "avx512": {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni"},
    "avx2": {"avx2", "fma", "f16c"},
}


def use_widest() -> None:
    """Make BigDL, before its import, load the widest library; an operator's choice takes precedence."""
    found = library(Path("/proc/cpuinfo").read_text(encoding="utf-8"))
    package = importlib.util.find_spec("bigdl.llm")
    if not found or package is None:
        return
    for place in package.submodule_search_locations or ():
        path = Path(place) / f"libs/libllama_{found}.so"
        if path.is_file():
            os.environ.setdefault(VARIABLE, str(path))


def library(cpuinfo: str) -> str:
    """The library for a CPU, by the kernel's flags; empty if BigDL's own choice is as good.

    Its choice is good on Intel's CPUs, including AMX, and the narrowest on all others.
    """
    lines = dict(line.partition(":")[::2] for line in cpuinfo.splitlines())
    facts = {name.strip(): text.split() for name, text in lines.items()}
    if "GenuineIntel" in facts.get("vendor_id", ()):
        return ""
    flags = set(facts.get("flags", ()))
    return next((name for name, needed in LIBRARIES.items() if needed <= flags), "")
