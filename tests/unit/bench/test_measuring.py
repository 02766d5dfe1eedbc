"""Loops without HTTP are driven as clients would drive them, and servers are awaited and ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from rig.host import RigError

from tests.bench import __main__ as command
from tests.bench import llama, loop, process, servers
from tests.bench.report import Measured


class FakeLoop(loop.Loop):
    """One token for each request in every step."""

    def __init__(self) -> None:
        self.under_way: dict[Hashable, Sequence[int]] = {}
        self.begun = self.most = 0

    def add(self, prompt: Sequence[int], tokens: int) -> Hashable:
        self.begun += 1
        self.under_way[self.begun] = prompt
        self.most = max(self.most, len(self.under_way))
        return self.begun

    def step(self) -> Iterator[tuple[Hashable, int]]:
        for key in list(self.under_way):
            yield key, 1

    def over(self, key: Hashable) -> None:
        del self.under_way[key]


def test_as_many_requests_are_under_way_as_there_are_clients() -> None:
    fake = FakeLoop()
    run = loop.measure(fake, [[1, 2]] * 5, 3, 4).as_dict()
    assert (fake.most, fake.begun, fake.under_way) == (3, 5, {})
    assert (run["clients"], run["requests"], run["answer_tokens_mean"], run["prompt_tokens_mean"]) == (3, 5, 4, 2)
    assert run["tokens_per_second"] == pytest.approx(20 / run["seconds"])
    assert run["first_token_seconds"]["p50"] <= run["request_seconds"]["p50"]


def test_a_server_is_awaited_and_ended(tmp_path: Path) -> None:
    port = process.free_port()
    start = servers.Start([sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)], ready="/")
    with process.running(start, port, tmp_path / "log"):
        assert process.answers("/", port)
    assert not process.answers("/", port)


def test_a_server_that_ends_says_why(tmp_path: Path) -> None:
    start = servers.Start([sys.executable, "-c", "import sys; sys.exit('no such model')"])
    with (
        pytest.raises(process.BenchError, match="status 1: no such model"),
        process.running(start, process.free_port(), tmp_path / "log"),
    ):
        pass


def test_a_loop_that_fails_says_why(tmp_path: Path) -> None:
    with pytest.raises(process.BenchError, match="status 1: no memory"):
        process.loop(servers.Start([sys.executable, "-c", "exit('no memory')"]), {}, tmp_path, tmp_path / "log")


def test_an_endless_model_is_the_same_but_for_its_end(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model.safetensors").write_text("weights")
    for name in ("config.json", "generation_config.json"):
        (model / name).write_text(json.dumps({"eos_token_id": 2, "bos_token_id": 1}))
    copy = servers.endless(model, tmp_path / "copy")
    assert (copy / "model.safetensors").read_text() == "weights"
    for name in ("config.json", "generation_config.json"):
        assert json.loads((copy / name).read_text()) == {"eos_token_id": -1, "pad_token_id": 2, "bos_token_id": 1}
        assert json.loads((model / name).read_text())["eos_token_id"] == 2


def test_who_takes_part_is_chosen_by_name_and_measured_in_one_order() -> None:
    assert command.parsed(["--servers", "bigdl,openvino"]).servers == ["openvino", "bigdl"]
    assert command.parsed(["--clients", "1,4"]).clients == [1, 4]
    assert servers.RAW not in command.parsed([]).servers
    with pytest.raises(SystemExit):
        command.parsed(["--servers", "nobody"])


def test_versions_are_those_of_the_requirements() -> None:
    assert "openvino-genai 20" in servers.versions()
    assert "llama-cpp-python 0." in servers.versions()


def test_a_peer_is_built_with_what_it_needs_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: list[str], env: dict[str, str]) -> None:
        commands.append(command)
        assert "--no-cache-dir" in command
        assert "-mno-amx-int8" in env["CXXFLAGS"]

    monkeypatch.setattr(llama, "run", run)
    llama.build(tmp_path)
    own, others = (tmp_path / "own.txt").read_text(), (tmp_path / llama.REQUIREMENTS.name).read_text()
    assert own.startswith("llama-cpp-python==")
    assert "--hash=sha256:" in own
    assert "\nfastapi==" in others
    assert "llama-cpp-python" not in others
    assert commands[0][-1] == str(tmp_path / "own.txt")


def test_a_peer_that_is_not_built_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> Path:
        raise RigError("nothing is to be made")

    monkeypatch.setattr("rig.cache.ARTIFACTS", tmp_path)
    monkeypatch.setattr("tests.engine.environment.made", refuse)
    assert llama.peer() is None


def test_a_pair_is_one_server_asked_with_and_without_a_schema(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[list[str]] = []
    started: list[int] = []

    def running(start: servers.Start, port: int, log: Path) -> AbstractContextManager[None]:
        started.append(port)
        return nullcontext()

    def ask(port: int, model: str, clients: int, requests: int, options: list[str]) -> dict[str, Any]:
        asked.append(options[2:])
        return {"tokens_per_second": 10 * len(asked), "failed": 0, "answer_tokens_mean": 64}

    monkeypatch.setattr("rig.cache.RUN", tmp_path)
    monkeypatch.setattr(process, "running", running)
    monkeypatch.setattr(process, "ask", ask)
    options = command.parsed(["--pairs", "2"])
    pairs = command.Bench(options, {"openvino": tmp_path}).pairs("openvino")
    schema = f"--schema={command.SCHEMA}"
    assert asked == [["--seed=0"], ["--seed=0", schema], ["--seed=1", schema], ["--seed=1"]]
    assert [tuple(each["tokens_per_second"] for each in pair) for pair in pairs] == [(10, 20), (40, 30)]
    assert len(started) == 1


def test_tokens_are_timed_while_no_request_arrives(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[int, int, str]] = []

    def ask(port: int, model: str, clients: int, requests: int, options: list[str]) -> dict[str, Any]:
        if clients > 8:
            raise process.BenchError("it ended")
        asked.append((clients, requests, options[1]))
        return answered(clients)

    def answered(clients: int) -> dict[str, Any]:
        return {"clients": clients, "tokens_per_second": 10, "failed": 0}

    monkeypatch.setattr("rig.cache.RUN", tmp_path)
    monkeypatch.setattr(process, "running", lambda start, port, log: nullcontext())
    monkeypatch.setattr(process, "ask", ask)
    bench = command.Bench(command.parsed(["--clients", "1,8,16"]), {command.EVEN: tmp_path})
    assert bench.once(command.EVEN) == Measured(command.EVEN, {1: answered(1), 8: answered(8)}, "it ended")
    assert asked == [(1, 1, "--max-tokens=300"), (8, 8, "--max-tokens=300")]
