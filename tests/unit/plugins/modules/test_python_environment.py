"""The environment module compares with the present files, and repairs differences."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.python_environment import (
    RuntimeSetupError,
    Sources,
    requirement_lines,
)
from ansible_collections.xpu.fleet.tests.pythons import of_nodes
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module
from ansible_collections.xpu.fleet.tests.unit.plugins.support.wheels import make_wheel


class Bench:
    """A wheelhouse and the options for an environment built from it."""

    def __init__(self, tmp_path: Path) -> None:
        self.wheels = tmp_path / "wheels"
        self.wheels.mkdir()
        self.path = tmp_path / "engines/one"
        self.requirements = "".join(
            f"{name}=={version} \\\n    --hash=sha256:{make_wheel(self.wheels, name, version)}\n"
            for name, version in (("alpha", "1.0"), ("beta", "2.0"))
        )
        self.requirements += "never==9 ; sys_platform == 'win32' \\\n    --hash=sha256:" + "0" * 64 + "\n"

    def run(self, *, check: bool = False, **changes: Any) -> dict[str, Any]:
        """Run the module."""
        options: dict[str, Any] = {
            "directory": str(self.path),
            "interpreter": sys.executable,
            "requirements": self.requirements,
            "find_links": [str(self.wheels)],
            "no_index": True,
        }
        return run_module("python_environment", check=check, **{**options, **changes})

    def site(self) -> Path:
        """Where the environment's packages are."""
        return next(self.path.glob("lib/python*/site-packages"))


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One environment, built once and damaged in turn by the tests."""
    made = Bench(tmp_path_factory.mktemp("bench"))
    foreseen = made.run(check=True)
    assert foreseen.get("changed") and not made.path.exists(), foreseen
    before = os.umask(0o077)  # an administrator's; the service has to read what comes
    try:
        assert made.run()["changed"]
    finally:
        os.umask(before)
    return made


def test_a_second_run_changes_nothing(bench: Bench) -> None:
    assert not bench.run()["changed"]
    assert (bench.site() / "alpha.py").exists()


def test_scripts_name_the_final_place(bench: Bench) -> None:
    assert (bench.path / "bin/pip").read_text().startswith(f"#!{bench.path}/bin/python")
    assert not list(bench.path.parent.glob("*.building"))


def test_a_truncated_file_is_found_and_mended(bench: Bench) -> None:
    (bench.site() / "alpha.py").write_text("")
    found = bench.run(check=True)
    assert found["changed"] and found["missing"] == ["alpha==1.0"]
    assert "alpha-1.0.dist-info (damaged)" in found["diff"]["before"]
    assert bench.run()["changed"]
    assert (bench.site() / "alpha.py").read_text() == 'VERSION = "1.0"\n'
    assert not bench.run()["changed"]


#: This Python, and the newest that is here. `make test-core` runs these tests on each that nodes may have.
PYTHONS = sorted({max(of_nodes()), sys.version_info[:2]})


@pytest.mark.parametrize("version", PYTHONS, ids=[f"{major}.{minor}" for major, minor in PYTHONS])
def test_a_deleted_file_is_found_and_mended_on_every_python(version: tuple[int, int], tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    python = {**of_nodes(), sys.version_info[:2]: sys.executable}[version]
    assert bench.run(interpreter=str(python))["changed"]
    assert not bench.run(interpreter=str(python), check=True)["changed"]
    (bench.site() / "alpha.py").unlink()
    found = bench.run(interpreter=str(python), check=True)
    assert found["missing"] == ["alpha==1.0"] and "alpha-1.0.dist-info (damaged)" in found["diff"]["before"]
    assert bench.run(interpreter=str(python))["changed"]
    assert (bench.site() / "alpha.py").exists()


@pytest.mark.parametrize("record", ["alpha.py\n", "\n", '"alpha.py,,\n', "alpha.py,,many\n"])
def test_a_record_that_cannot_be_read_counts_as_damage(bench: Bench, record: str) -> None:
    (bench.site() / "alpha-1.0.dist-info/RECORD").write_text(record)
    assert "alpha-1.0.dist-info (damaged)" in bench.run(check=True)["diff"]["before"]
    assert bench.run()["changed"]
    assert not bench.run(check=True)["changed"]


def test_an_installation_that_was_cut_off_is_finished(bench: Bench) -> None:
    (bench.site() / "beta-2.0.dist-info/RECORD").unlink()
    assert bench.run()["changed"]
    assert not bench.run()["changed"]


def test_another_version_comes_and_what_is_not_named_goes(bench: Bench) -> None:
    digest = make_wheel(bench.wheels, "beta", "3.0")
    changed = bench.run(requirements=f"beta==3.0 --hash=sha256:{digest}")
    assert changed["changed"] and "alpha==1.0 (superfluous)" in changed["diff"]["before"]
    assert not (bench.site() / "alpha.py").exists()
    assert bench.run()["changed"]
    assert (bench.site() / "beta.py").read_text() == 'VERSION = "2.0"\n'


def test_an_environment_without_its_interpreter_is_built_anew(bench: Bench) -> None:
    (bench.path / "bin/python").unlink()
    (bench.path / "bin/python").symlink_to("/nowhere/python")
    result = bench.run()
    assert result["changed"] and "interpreter does not run" in result["reason"]
    assert not bench.run()["changed"]


def test_an_environment_of_another_python_is_to_be_built_anew(bench: Bench, tmp_path: Path) -> None:
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho 3.99\n")
    other.chmod(0o755)
    found = bench.run(check=True, interpreter=str(other))
    assert found["changed"] and "instead of 3.99" in str(found), found


def test_pins_without_hashes_are_installed_by_version(bench: Bench) -> None:
    make_wheel(bench.wheels, "gamma", "1.0")
    assert bench.run(unhashed=["gamma==1.0"])["changed"]
    assert not bench.run(unhashed=["gamma==1.0"])["changed"]
    assert bench.run()["changed"]


def test_a_wheel_that_is_not_the_pinned_one_is_refused(bench: Bench) -> None:
    failed = bench.run(requirements="alpha==1.0 --hash=sha256:" + "0" * 64, directory=str(bench.path.parent / "two"))
    assert failed["failed"] and "differs from the pinned one" in failed["msg"]
    assert not (bench.path.parent / "two").exists()
    make_wheel(bench.wheels, "gamma", "1.0")
    failed = bench.run(unhashed=["gamma==1.0"], sha256={"gamma==1.0": "0" * 64})
    assert failed["failed"] and "differs from the pinned one" in failed["msg"]


def test_a_wheel_that_is_nowhere_says_what_to_set(bench: Bench) -> None:
    failed = bench.run(requirements=bench.requirements + "delta==1.0 --hash=sha256:" + "0" * 64)
    assert failed["failed"] and "delta==1.0" in failed["msg"] and "python_runtime_wheelhouse" in failed["msg"]


def test_too_little_space_is_refused_before_anything(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    failed = bench.run(check=True, minimum_free_bytes=10**18)
    assert failed["failed"] and "GB free" in failed["msg"]


def test_an_absent_interpreter_is_an_error_only_when_it_is_needed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.run(check=True, interpreter="/nowhere/python")["changed"]
    failed = bench.run(interpreter="/nowhere/python")
    assert failed["failed"] and "python_runtime_provider" in failed["msg"]


def test_packages_are_readable_by_the_service(bench: Bench) -> None:
    assert (bench.site() / "alpha.py").stat().st_mode & 0o044 == 0o044


def test_every_line_has_to_pin_a_version() -> None:
    assert requirement_lines(
        "# c\na==1 ; python_version < '4' \\\n --hash=sha256:00\n--no-binary x\nb[c]==2+xpu # d\n"
    ) == [
        "a==1 ; python_version < '4'",
        "b[c]==2+xpu",
    ]
    for line in ("a>=1", "a", "a==1.*", "git+https://example.com/a"):
        with pytest.raises(RuntimeSetupError, match="name==version on every line"):
            requirement_lines(line)


def test_plain_http_is_for_hashed_wheels_only() -> None:
    sources = Sources(["http://user:word@mirror:8077/wheels/"], "https://index/simple")
    assert sources.lines(hashed=True)[-1] == "--trusted-host mirror:8077"
    assert not [line for line in sources.lines(hashed=False) if line.startswith("--trusted-host")]
