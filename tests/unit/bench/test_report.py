"""What is measured becomes ratios, a table and verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rig import cache

from tests.bench import __main__ as command
from tests.bench import report
from tests.bench.report import Measured, Report, Row
from tests.bench.servers import CONTESTANTS


def run(
    speed: float,
    first: float = 0.1,
    *,
    failed: int = 0,
    answer: float = 64,
    counted: bool = True,
    gaps: tuple[float, float] = (0.02, 0.03),
) -> dict[str, Any]:
    return {
        "tokens_per_second": speed,
        "first_token_seconds": {"p50": first},
        "inter_token_seconds": {"p50": gaps[0], "p95": gaps[1]},
        "failed": failed,
        "answer_tokens_mean": answer,
        "counted": counted,
    }


RAW, OWN = Row("raw", "the loop"), Row("openvino", "ours")


def reported(*turns: Measured) -> Report:
    return Report(turns, "raw")


def test_a_ratio_is_to_the_raw_loop_just_before_and_after() -> None:
    found = reported(
        Measured("raw", {1: run(100)}),
        Measured("openvino", {1: run(75, first=0.3)}),
        Measured("raw", {1: run(50)}),
        Measured("other", {1: run(75)}),
        Measured("raw", {1: run(50)}),
    )
    assert found.ratio("openvino", 1) == 1
    assert found.ratio("other", 1) == 1.5
    assert found.ratio("openvino", 1, report.first_token) == pytest.approx(3)
    assert found.ratio("raw", 1) == 1
    assert found.ratio("openvino", 4) is None
    assert found.spread(1) == 1


def test_of_several_rounds_the_median_counts() -> None:
    raw = Measured("raw", {1: run(100)})
    turns = [turn for speed in (90, 10, 80) for turn in (raw, Measured("x", {1: run(speed)}))]
    assert reported(*turns).ratio("x", 1) == 0.8


def test_a_run_with_failures_has_no_speed() -> None:
    found = reported(Measured("raw", {4: run(100)}), Measured("x", {4: run(100, failed=2)}, "broken"))
    assert found.ratio("x", 4) is None
    assert found.failures("x") == 2
    assert found.errors("x") == ["broken"]


def test_without_the_raw_loop_there_is_no_ratio() -> None:
    found = reported(Measured("raw", {}, "no model"), Measured("x", {1: run(100)}))
    assert found.ratio("x", 1) is None
    assert found.ratio("raw", 1) is None
    assert found.spread(1) is None


def test_the_table() -> None:
    found = reported(
        Measured("raw", {1: run(100), 4: run(300)}),
        Measured("openvino", {1: run(95, first=0.11), 4: run(270, failed=1)}),
        Measured("none", {}, "it ended"),
    )
    assert report.table(found, [RAW, OWN, Row("none", "nobody")], [1, 4]) == [
        "|          | tok/s, 1 client | tok/s, 4 clients | first token, 1 client | failed |",
        "|----------|-----------------|------------------|-----------------------|--------|",
        "| the loop | 1.00            | 1.00             | 1.00                  | 0      |",
        "| ours     | 0.95            | -                | 1.10                  | 1      |",
        "| nobody   | -               | -                | -                     | -      |",
    ]


def test_the_notes_tell_noise_errors_and_what_a_server_cannot_do() -> None:
    found = reported(
        Measured("raw", {1: run(100)}),
        Measured("openvino", {1: run(90, answer=40.4, counted=False)}),
        Measured("raw", {1: run(110)}),
        Measured("none", {}, "it ended"),
    )
    assert report.notes(found, [RAW, OWN, Row("none", "nobody")], [1], 64) == [
        "The raw loop itself, measured again and again, was within 5% of its median.",
        "ours: its answers end where the model ends them, here after 40 tokens.",
        "ours: it counts no tokens in a stream; each piece of text counts as one.",
        "nobody: it ended",
    ]


def test_what_was_promised() -> None:
    runs = {
        "raw": {1: run(100), 8: run(100)},
        "openvino": {1: run(90, first=0.13), 8: run(85)},
        "bigdl-loop": {8: run(50)},
        "bigdl": {8: run(30)},
        "tutorial": {8: run(10)},
    }
    peers = [Row("tutorial", "a tutorial", peer=True), Row("failed", "a peer", peer=True)]
    rows = [RAW, OWN, Row("bigdl-loop", "its loop"), Row("bigdl", "ours too"), *peers]
    found = reported(*(Measured(name, value) for name, value in runs.items()), Measured("failed", {}, "it ended"))
    assert [str(promise) for promise in report.promises(found, rows, [1, 8])] == [
        "NOT KEPT: openvino, 1 client, tok/s to the raw loop's, at least 1.00: 0.90",
        "NOT KEPT: openvino, 8 clients, tok/s to the raw loop's, at least 0.90: 0.85",
        "NOT KEPT: openvino, 1 client, first token to the raw loop's, at most 1.25: 1.30",
        "NOT KEPT: bigdl, 8 clients, tok/s to its own loop's, at least 0.80: 0.60",
        "kept: bigdl, 8 clients, tok/s to a thread per request, at least 2.00: 3.00",
        "kept: openvino, 8 clients, tok/s to tutorial, at least 1.00: 8.50",
        "NOT MEASURED: openvino, 8 clients, tok/s to failed, at least 1.00",
    ]
    # What was not asked for is not missed.
    assert [promise.kept for promise in report.promises(found, rows, [1])] == [False, False]
    assert [promise.kept for promise in report.promises(found, [RAW, OWN], [8])] == [False]


def test_what_was_promised_of_two_processes() -> None:
    runs = {
        "raw": run(100),
        "openvino": run(90),
        "before": run(80),
        "raw-1": run(50),
        "openvino-1": run(45, first=0.2),
        "before-1": run(30, first=0.9),
    }
    rows = [Row(name, name) for name in runs]
    found = reported(*(Measured(name, {8: value}) for name, value in runs.items()))
    assert [str(promise) for promise in report.promises(found, rows, [8])] == [
        "kept: openvino, 8 clients, tok/s to the raw loop's, at least 0.90: 0.90",
        "kept: openvino, 8 clients, tok/s to what it was before it had two processes, at least 1.00: 1.12",
        "NOT KEPT: openvino-1, 8 clients, tok/s to the raw loop's on a processor, at least 0.95: 0.90",
        "kept: openvino-1, 8 clients, first token to what it was before, at most 0.33: 0.22",
    ]


def test_tokens_come_evenly() -> None:
    runs = {1: run(10, gaps=(0.02, 0.05)), 8: run(10, gaps=(0.02, 0.06)), 16: run(10, failed=1)}
    what = "p95 to p50 of the time between tokens, at most 2.5"
    assert [str(promise) for promise in report.even(Measured("x", runs), [1, 8, 16, 32])] == [
        f"kept: x, 1 client, {what}: 2.50",
        f"NOT KEPT: x, 8 clients, {what}: 3.00",
        f"NOT MEASURED: x, 16 clients, {what}",
        f"NOT MEASURED: x, 32 clients, {what}",
    ]


def test_what_a_token_may_cost() -> None:
    told = report.cost({1: 94.2, 8: 79.8}, {1: 50.1, 8: 30.4}, 0.002)
    assert "a step every 2 ms" in told
    assert "94 at 1, 80 at 8; of a program" in told
    assert "sends it: 50 at 1, 30 at 8." in told
    assert report.cheap({1: 94.2, 8: 79.8}).kept  # a client alone pays for each step's message
    assert not report.cheap({8: 70.0, 16: 80.5}).kept
    assert not report.cheap({1: 50.0}).kept


@pytest.mark.parametrize(
    ("own", "peer", "status"),
    [
        (Measured("openvino", {8: run(95)}), Measured("tutorial", {8: run(10)}), 0),
        (Measured("openvino", {8: run(75)}), Measured("tutorial", {8: run(10)}), 1),
        (Measured("openvino", {8: run(95)}), Measured("tutorial", {8: run(99)}), 1),
        (Measured("openvino", {8: run(95)}), Measured("tutorial", {8: run(0)}), 1),
        (Measured("openvino", {8: run(95)}), Measured("tutorial", {8: run(10)}, "it ended"), 1),
    ],
)
def test_a_promise_that_is_not_kept_or_not_measured_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, own: Measured, peer: Measured, status: int
) -> None:
    assert measured(monkeypatch, tmp_path, own, peer) == status


def test_tokens_that_come_unevenly_are_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    turn = Measured(command.EVEN, {8: run(50)})
    for gaps, status in (((0.02, 0.03), 0), ((0.02, 0.06), 1)):
        monkeypatch.setattr(
            command.Bench, "once", lambda self, name, gaps=gaps: Measured(name, {8: run(50, gaps=gaps)})
        )
        assert measured(monkeypatch, tmp_path, turn) == status


def measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *turns: Measured) -> int:
    """The exit status of a run with 8 clients in which the contestants' turns are these."""
    found = {turn.name: turn for turn in (Measured("raw", {8: run(100)}), *turns)}
    here = {name: each._replace(python=lambda: tmp_path) for name, each in CONTESTANTS.items()}
    monkeypatch.setattr(command, "CONTESTANTS", here)
    monkeypatch.setattr(command.Bench, "turn", lambda self, name, number: found[name])
    monkeypatch.setattr(
        command.Bench, "cost", lambda self, engine, script, seconds: {8: 70.0 if seconds == 0.02 else 90.0}
    )
    monkeypatch.setattr(command.Bench, "pairs", lambda self, name: [(run(100), run(97))])
    monkeypatch.setattr(command, "versions", str)
    monkeypatch.setattr(cache, "RUN", tmp_path)
    monkeypatch.setattr("sys.argv", ["bench", f"--servers={','.join(turn.name for turn in turns)}", "--clients=8"])
    return command.main()


def test_the_table_goes_between_the_marks(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"before\n{report.BEGIN}old\n{report.END}\nafter\n")
    report.write(readme, ["new", "lines"])
    assert readme.read_text() == f"before\n{report.BEGIN}new\nlines\n{report.END}\nafter\n"


def test_structured_answers_are_compared_pair_by_pair() -> None:
    pairs = [(run(100), run(97)), (run(50), run(48)), (run(80), run(80))]
    assert report.structured("ours", pairs) == (
        "- ours: tok/s of 8 clients with a JSON schema to plain answers of as many tokens: 0.97 (median of 3 pairs, "
        "0.96 to 1.00)."
    )
    assert report.as_fast("openvino", pairs).kept
    assert not report.as_fast("openvino", [(run(100), run(90))]).kept
    for other in (run(100, failed=1), run(100, answer=20)):
        promise = report.as_fast("openvino", [*pairs, (run(100), other)])
        assert (promise.found, promise.kept) == (None, False)
