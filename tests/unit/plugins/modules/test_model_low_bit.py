"""Weights are converted once, in a sandbox, and again only if their source changed."""

from __future__ import annotations

import getpass
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module

#: Stands for systemd-run: writes what the conversion would, where its last argument says.
SYSTEMD_RUN = """#!/bin/sh
echo "$*" >>{at}/log
[ ! -e {at}/failing ] || {{ echo 'no memory left' >&2; exit 3; }}
for last; do :; done
mkdir -p "$last" && echo weights >"$last/pytorch_model.bin"
"""


class Bench:
    """A place for converted weights, and a stand-in for what converts."""

    def __init__(self, directory: Path) -> None:
        self.at = directory
        self.directory = directory / "models/tiny-sym_int4"
        command = directory / "systemd-run"
        command.write_text(SYSTEMD_RUN.format(at=directory))
        command.chmod(0o755)

    def run(self, *, check: bool = False, digest: str = "d1", low_bit: str = "sym_int4") -> dict[str, Any]:
        return run_module(
            "model_low_bit",
            check=check,
            path=str(self.at),
            name="tiny",
            directory=str(self.directory),
            config={"model": {"path": "/srv/tiny", "low_bit": low_bit}},
            digest=digest,
            engine="bigdl-cpu",
            command=["/opt/python", "/opt/xpuserve.pyz"],
            user=getpass.getuser(),
        )

    @property
    def weights(self) -> Path:
        return self.directory / "pytorch_model.bin"


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_weights_are_converted_once(bench: Bench) -> None:
    foreseen = bench.run(check=True)
    assert foreseen["changed"] and not bench.directory.exists()
    done = bench.run()
    assert done["changed"] and done["path"] == str(bench.directory) and bench.weights.read_text() == "weights\n"
    assert not bench.run()["changed"] and len((bench.at / "log").read_text().splitlines()) == 1


def test_other_weights_or_another_format_are_converted_again(bench: Bench) -> None:
    bench.run()
    others: list[dict[str, Any]] = [{"digest": "d2"}, {"digest": "d2", "low_bit": "sym_int8"}]
    for changes in others:
        assert "came from another source" in bench.run(check=True, **changes)["reason"]
        assert bench.run(**changes)["changed"] and not bench.run(**changes)["changed"]


def test_damaged_weights_are_converted_again(bench: Bench) -> None:
    bench.run()
    bench.weights.write_text("half")
    assert "pytorch_model.bin has 4 bytes" in bench.run()["reason"] and bench.weights.read_text() == "weights\n"


def test_a_conversion_that_fails_says_why_and_leaves_nothing(bench: Bench) -> None:
    (bench.at / "failing").touch()
    refused = bench.run()
    assert refused["failed"] and "Model tiny: the conversion to sym_int4 failed" in refused["msg"]
    assert "no memory left" in refused["msg"] and not bench.directory.exists()
