"""The module returns GPUs and the system, and fails if the system cannot be read."""

from __future__ import annotations

from pathlib import Path

from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module


def test_a_machine_without_gpus_is_told_as_such(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nVERSION_ID="12"\nVERSION_CODENAME=bookworm\n')
    found = run_module("gpu_info", root=str(tmp_path))
    assert not found["changed"]
    assert (found["gpus"], found["lent"], found["others"], found["families"], found["served"]) == ([], [], [], [], [])
    assert (found["system"]["distribution"], found["system"]["release"]) == ("Debian", "12")


def test_a_damaged_os_release_is_named(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID="debian\n')
    refused = run_module("gpu_info", root=str(tmp_path))
    assert refused["failed"] and "/etc/os-release is damaged" in refused["msg"]
