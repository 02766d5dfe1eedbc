"""The library that BigDL loads on a CPU."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from xpuserve.backends import instructions

AVX512 = "avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni"


def cpuinfo(vendor: str, flags: str) -> str:
    """Two processors, as the kernel describes them."""
    return f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu sse2 {flags}\npower management:\n\n" * 2


@pytest.mark.parametrize(
    ("vendor", "flags", "library"),
    [
        ("AuthenticAMD", f"avx avx2 fma f16c {AVX512}", "avx512"),
        ("AuthenticAMD", "avx avx2 fma f16c avx512f", "avx2"),
        ("AuthenticAMD", "avx", ""),
        ("GenuineIntel", f"avx avx2 fma f16c {AVX512}", ""),
    ],
)
def test_the_widest_library_that_the_cpu_can_run(vendor: str, flags: str, library: str) -> None:
    assert instructions.library(cpuinfo(vendor, flags)) == library


def test_bigdl_is_told_unless_the_operator_chose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "bigdl/llm"
    (package / "libs").mkdir(parents=True)
    for path in (tmp_path / "bigdl/__init__.py", package / "__init__.py", package / "libs/libllama_avx2.so"):
        path.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(instructions, "library", lambda cpuinfo: "avx2")
    monkeypatch.setenv(instructions.VARIABLE, "")  # so that it is undone
    monkeypatch.delenv(instructions.VARIABLE)
    instructions.use_widest()
    assert os.environ[instructions.VARIABLE] == str(package / "libs/libllama_avx2.so")
    monkeypatch.setenv(instructions.VARIABLE, "mine")
    instructions.use_widest()
    assert os.environ[instructions.VARIABLE] == "mine"
    assert "bigdl.llm" not in sys.modules
    sys.modules.pop("bigdl", None)
