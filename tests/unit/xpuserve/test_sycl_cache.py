"""Only kernels compiled for another driver are deleted."""

from __future__ import annotations

from pathlib import Path

import pytest
from xpuserve.sycl_cache import refresh


def status(root: Path, **versions: str) -> None:
    text = "\n\n".join(f"Package: {name.replace('_', '-')}\nVersion: {version}" for name, version in versions.items())
    path = root / "var/lib/dpkg/status"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that was filled with the present driver."""
    status(tmp_path, intel_opencl_icd="25.18", bash="5.2")
    folder = tmp_path / "cache/sycl"
    assert not refresh(folder, tmp_path)
    (folder / "kernel.bin").write_text("compiled")
    return folder


def test_a_cache_of_the_same_driver_stays(cache: Path, tmp_path: Path) -> None:
    status(tmp_path, bash="5.3", intel_opencl_icd="25.18")
    assert not refresh(cache, tmp_path) and (cache / "kernel.bin").exists()


@pytest.mark.parametrize(
    "versions", [{"intel_opencl_icd": "25.27"}, {"intel_opencl_icd": "25.18", "libigc2": "2.11"}, {}]
)
def test_a_cache_of_another_driver_is_emptied_once(cache: Path, tmp_path: Path, versions: dict[str, str]) -> None:
    status(tmp_path, **versions)
    assert refresh(cache, tmp_path) and not (cache / "kernel.bin").exists()
    assert not refresh(cache, tmp_path)


def test_a_kernel_module_is_part_of_the_driver(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "sys/module/i915").mkdir(parents=True)
    (tmp_path / "sys/module/i915/srcversion").write_text("ABC\n")
    assert refresh(cache, tmp_path)


def test_a_cache_that_nobody_marked_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/kernel.bin").write_text("of an earlier version of the service")
    assert refresh(tmp_path / "kept", tmp_path)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == [".driver"]
