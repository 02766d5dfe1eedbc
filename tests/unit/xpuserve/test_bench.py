"""Measuring the service and other kinds of servers."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, FakeBackend, wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.process import serving
from ansible_collections.xpu.fleet.tests.unit.xpuserve.stubs import StubHandler, StubServer, running
from xpuserve import bench, cli

SERVICE = Path(__file__).parents[3] / "roles/inference/files/xpuserve"
KEY = "secret-of-anna-0123456789"


class Server(StubServer):
    """Speaks just enough of the API: a prompt counts 20 tokens and one a word, an answer 2 tokens a piece."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(Handler)
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.together: Optional[threading.Barrier] = None  # of all requests but the first three
        self.usage = True  # in a stream
        self.counts = True  # in an answer in one piece
        self.done = True
        self.knows_ignore_eos = True
        self.refused: set[int] = set()  # by the number of the request


class Handler(StubHandler):
    server: Server

    def do_POST(self) -> None:
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.asked.append(body)
            number = len(server.asked)
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
        try:
            if "ignore_eos" in body and not server.knows_ignore_eos:
                self._send(400, {"error": {"message": "unknown", "code": "unknown_parameter"}})
            elif number in server.refused:
                self._send(429, {"error": {"message": "too much", "code": "queue_full"}})
            else:
                if server.together and number > 3:
                    server.together.wait(30)
                self._answer(body)
        except threading.BrokenBarrierError:
            pass  # the test is over
        finally:
            with server.lock:
                server.at_once -= 1

    def _answer(self, body: dict[str, Any]) -> None:
        pieces = max(1, body["max_tokens"] // 2)
        words = len(body["messages"][0]["content"].split())
        usage = {"prompt_tokens": 20 + words, "completion_tokens": min(body["max_tokens"], 2 * pieces)}
        if not body.get("stream"):
            self._send(200, {"usage": usage} if self.server.counts else {})
            return
        self.send_response(200)
        self.end_headers()
        for _ in range(pieces):
            self._event({"choices": [{"index": 0, "delta": {"content": "xx"}}]})
        if self.server.usage:
            self._event({"choices": [], "usage": usage})
        if self.server.done:
            self.wfile.write(b"data: [DONE]\n\n")
        else:
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with running(server):
        yield server


def measure(capsys: pytest.CaptureFixture[str], url: str, *arguments: str, status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert cli.main(["bench", "--url", url, "--json", *arguments]) == status
    return dict(json.loads(capsys.readouterr().out))


def test_the_service_is_measured(url: str, backend: FakeBackend, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("--clients", "1,2", "--requests", "4", "--prompt-tokens", "30", "--max-tokens", "9")
    report = measure(capsys, url, *command, "--seed", "7")
    assert (report["model"], report["ignore_eos"], report["seed"]) == (MODEL, True, 7)
    assert [run["clients"] for run in report["runs"]] == [1, 2]
    for run in report["runs"]:
        assert (run["requests"], run["failed"], run["errors"]) == (4, 0, {})
        assert run["answer_tokens_mean"] == 9
        assert 20 <= run["prompt_tokens_mean"] <= 40  # the fake tokenizer's words differ in length
        assert run["tokens_per_second"] == pytest.approx(4 * 9 / run["seconds"])
        assert 0 < run["first_token_seconds"]["p50"] <= run["first_token_seconds"]["p95"]
        assert run["first_token_seconds"]["p95"] <= run["request_seconds"]["p95"] <= run["seconds"]
        assert 0 <= run["inter_token_seconds"]["p50"] <= run["inter_token_seconds"]["p95"]
        assert 0 < run["client_tokens_per_second"]["p5"] <= run["client_tokens_per_second"]["p50"]
    # Two questions for the words of a prompt and one of full length; then one for each client before each run.
    prompts = [prompt for prompt, _ in backend.seen]
    assert len(prompts) == 3 + (1 + 4) + (2 + 4)
    assert len(set(prompts[2:])) == len(prompts[2:])
    assert all(sampling.ignore_eos and sampling.temperature == 0 for _, sampling in backend.seen)


def test_clients_ask_at_the_same_time_and_prompts_are_as_long_as_wanted(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.together = threading.Barrier(3)
    report = measure(capsys, server.url, "--clients", "3", "--requests", "6", "--prompt-tokens", "100")
    assert report["runs"][0]["failed"] == 0
    assert report["runs"][0]["prompt_tokens_mean"] == 100
    assert server.most_at_once == 3
    assert len(server.asked) == 3 + 3 + 6


def test_answers_of_a_schema_end_with_it(server: Server, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text('{"type": "object"}')
    measure(capsys, server.url, "--clients", "1", "--requests", "1", "--schema", str(file))
    for body in server.asked:
        assert body["response_format"]["json_schema"]["schema"] == {"type": "object"}
        assert "ignore_eos" not in body
    file.write_text("[]")
    with pytest.raises(SystemExit):
        cli.main(["bench", "--url", server.url, "--schema", str(file)])
    assert "not a JSON object" in capsys.readouterr().err


def test_the_table(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "--url", server.url, "--clients", "1,2", "--requests", "3", "--max-tokens", "8"]
    assert cli.main(command) == 0
    out, err = capsys.readouterr()
    title, tokens, pieces, empty, _, heads, one, two = out.splitlines()
    assert title == f"fake at {server.url}"
    assert tokens == "tokens on average: prompts 128, answers 8"
    assert pieces == "a piece of an answer has 2 tokens: inter-token is the time between pieces"
    assert empty == ""
    assert " ".join(heads.split()) == "clients requests failed tok/s tok/s p50 p5 ms p50 p95 ms p50 p95"
    assert one.split()[:3] == ["1", "3", "0"]
    assert two.split()[:3] == ["2", "3", "0"]
    assert "nan" not in out
    assert err == "1 client ...\n2 clients ...\n"


def test_what_is_refused_is_counted_and_nothing_else_of_it(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.refused = {6, 7}
    command = ("--clients", "1", "--requests", "5")
    (run,) = measure(capsys, server.url, *command, status=1)["runs"]
    assert (run["requests"], run["failed"], run["errors"]) == (5, 2, {"429 queue_full": 2})
    assert run["requests_per_second"] == pytest.approx(3 / run["seconds"])
    server.asked.clear()
    assert cli.main(["bench", "--url", server.url, *command]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "1 clients: 2 x 429 queue_full"


def test_a_run_of_which_nothing_was_answered(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.refused = set(range(4, 20))
    assert cli.main(["bench", "--url", server.url, "--clients", "1"]) == 1
    assert capsys.readouterr().out.splitlines()[-2].split() == ["1", "4", "4", "0.00", *["-"] * 6]


def test_a_server_that_does_not_know_ignore_eos(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.knows_ignore_eos = False
    assert measure(capsys, server.url, "--clients", "1")["ignore_eos"] is False
    assert cli.main(["bench", "--url", server.url, "--clients", "1", "--natural-end"]) == 0
    assert "the model ends its answers" in capsys.readouterr().out


def test_prompts_are_new_ones_unless_an_earlier_call_is_repeated(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def prompts(*arguments: str) -> list[str]:
        server.asked.clear()
        measure(capsys, server.url, "--clients", "1", *arguments)
        return [body["messages"][0]["content"] for body in server.asked]

    assert prompts("--seed", "3") == prompts("--seed", "3")
    assert set(prompts()[2:]).isdisjoint(prompts()[2:])


def test_where_a_stream_has_no_token_counts_pieces_count(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.usage = False
    report = measure(capsys, server.url, "--clients", "2", "--prompt-tokens", "100", "--max-tokens", "8")
    assert not report["counted"]
    assert (report["runs"][0]["failed"], report["runs"][0]["answer_tokens_mean"]) == (0, 4)
    assert len(server.asked[-1]["messages"][0]["content"].split()) == 80
    assert "each piece of an answer counts as one" in bench.table(report)


def test_a_server_without_token_counts_is_not_measured(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.usage = server.counts = False
    assert cli.main(["bench", "--url", server.url]) == 1
    assert "the server does not count prompt tokens" in capsys.readouterr().err


def test_an_answer_may_end_with_its_finish_reason(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    server.done = False
    assert measure(capsys, server.url, "--clients", "1")["runs"][0]["failed"] == 0


def test_a_load_that_does_not_fit_the_model_is_said_at_once(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--url", url, "--prompt-tokens", "20", "--max-tokens", "60"]) == 1
    assert "context length is 64 tokens" in capsys.readouterr().err


def test_a_key_comes_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "api_keys"
    path.touch(0o600)
    path.write_text(KEY + "\n")
    command = ("--clients", "1", "--requests", "1", "--prompt-tokens", "8", "--max-tokens", "4")
    with serving(keys=path) as (_, ask):
        assert cli.main(["bench", "--url", ask.url, *command]) == 1
        assert "says 401" in capsys.readouterr().err
        report = measure(capsys, ask.url, *command, "--api-key-file", str(path))
    assert report["runs"][0]["failed"] == 0
    assert KEY not in json.dumps(report)


@pytest.mark.parametrize("seed", range(12, 15))
def test_short_prompts_whatever_their_words(seed: int, url: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ("--clients", "1", "--requests", "1", "--prompt-tokens", "8", "--max-tokens", "4")
    assert measure(capsys, url, *command, "--seed", str(seed))["runs"][0]["failed"] == 0


@pytest.mark.parametrize(
    "arguments", [("--clients", "0"), ("--clients", "1,x"), ("--max-tokens", "0"), ("--requests", "-1")]
)
def test_wrong_numbers(arguments: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        cli.main(["bench", *arguments])
    assert raised.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_not_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "--url", "ftp://x"]) == 2
    assert "is not a server address" in capsys.readouterr().err


def test_percentiles_are_values_that_were_seen() -> None:
    values = [float(n) for n in range(100, 0, -1)]
    assert bench._spread(values, (5, 50, 95)) == {"mean": 50.5, "p5": 5, "p50": 50, "p95": 95}
    assert bench._spread([3.0], (5, 95)) == {"mean": 3, "p5": 3, "p95": 3}
    assert bench._spread([], (50,)) == {"mean": None, "p50": None}


def test_ctrl_c_ends_it_with_no_package_but_pythons(server: Server) -> None:
    server.together = threading.Barrier(99)  # of whom nobody else comes
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"sys.path.insert(0, {str(SERVICE)!r}); from xpuserve.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-I", "-S", "-c", code, "bench", "--url", server.url, "--clients", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stderr
        waiting = server.together
        wait_for(lambda: waiting.n_waiting == 2)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert b"Traceback" not in process.stderr.read()
    server.together.abort()
