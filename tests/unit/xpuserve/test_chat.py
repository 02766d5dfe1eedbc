from __future__ import annotations

import builtins
import json
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.stubs import StubHandler, StubServer, running
from xpuserve import cli
from xpuserve.client import APIClient, ClientError
from xpuserve.terminal import shown

SERVICE = Path(__file__).parents[3] / "roles/inference/files/xpuserve"


# Control sequences, in pieces; invisible text; text that looks like the chat's own words.
EVIL = (
    "Pa\x1b",
    "]0;owned\x07",
    "\x1b[2Jr",
    "\x9b31mis\x7f",
    "\r\u202e",
    "\u200b\u2066\ufeff",
    "\U000e0041\u2028\n",
    "!",
)
REFUSALS: dict[str, tuple[int, dict[str, Any], dict[str, str]]] = {
    "refuse": (400, {"error": {"message": "too long"}}, {}),
    "busy": (429, {"error": {"message": "no"}}, {"Retry-After": "7"}),
    "locked": (401, {"error": {"message": "no"}}, {"Retry-After": "7"}),
    "evil refusal": (429, {"error": {"message": "".join(EVIL)}}, {"Retry-After": "\x1b[2J"}),
}
FAILURES = {"fail": {"message": "out of memory"}, "evil": {"message": "".join(EVIL), "code": ["\x1b"]}}


class Server(StubServer):
    """Speaks just enough of the API, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(Handler)


class Handler(StubHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append(body)
        question = body["messages"][-1]["content"]
        if question == "shorten" and len(body["messages"]) > 4:
            self._send(400, {"error": {"message": "too long", "code": "context_length_exceeded"}})
            return
        if question in REFUSALS:
            self._send(*REFUSALS[question])
            return
        self.send_response(200)
        self.end_headers()
        if question == "nothing":
            self.rfile.read(1)  # until the client leaves
            return
        for piece in EVIL if question == "evil" else ("Pa", "ris ", "é"):
            self._event({"choices": [{"index": 0, "delta": {"content": piece}}], "usage": {"completion_tokens": "9"}})
        if question == "hang":
            self.rfile.read(1)  # until the client leaves
        elif question in FAILURES:
            self._event({"error": FAILURES[question]})
        elif question == "odd":
            self._event({"choices": [{"text": "x"}]})
        elif question == "text":
            self.wfile.write(b"data: x\n\n")
        elif question != "cut":
            if "stream_options" in body:
                self._event({"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4}})
            self.wfile.write(b"data: [DONE]\n\n")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with running(server):
        yield server


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where questions are kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state"


def type_in(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    """Let a person type lines and then press Ctrl-D."""
    waiting = iter(lines)

    def answer(prompt: str) -> str:
        try:
            return next(waiting)
        except StopIteration:
            raise EOFError from None

    monkeypatch.setattr(builtins, "input", answer)


def test_once(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["chat", "--url", server.url, "--system", "Be brief.", "--once", "Where?"]) == 0
    assert capsys.readouterr().out == "Paris é\n"
    assert server.asked[0]["model"] == "fake"
    assert server.asked[0]["stream"] is True
    assert [message["role"] for message in server.asked[0]["messages"]] == ["system", "user"]


def test_nothing_that_a_server_says_is_obeyed_by_the_terminal(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "evil", "evil refusal")
    assert cli.main(["chat", "--url", server.url, "--model", "m\x1b[2J\n"]) == 0
    said = capsys.readouterr().out
    assert "Model: Pa\ufffd]0;owned\ufffd\ufffd[2Jr\ufffd31mis\ufffd\ufffd\ufffd\n!" in said
    assert "429: Pa\ufffd]0;owned" in said and "try again" not in said
    assert {char for char in said if not char.isprintable()} == {"\n"}
    assert len(said.splitlines()) == said.count("\n")


@pytest.mark.parametrize("text", ["é😀", "日本語", "שלום", "a\tb\nc", "[2m"])
def test_text_is_shown_as_it_is(text: str) -> None:
    assert shown(text) == text


@pytest.mark.parametrize(
    "event",
    [
        *({"choices": [{"delta": {"content": ["x"]}}]}, {"choices": [None]}, [], "x", 1, None),
        *(
            {"error": {"message": {"a": "b"}}},
            {"error": "x"},
            {"choices": [], "usage": [1]},
            {"choices": [], "usage": "x"},
        ),
    ],
)
def test_an_event_of_another_shape_is_no_answer(event: object) -> None:
    with pytest.raises(ClientError, match="does not speak OpenAI's API"):
        APIClient("http://127.0.0.1:1")._event(json.dumps(event).encode())


@pytest.mark.parametrize(
    ("question", "message"), [("refuse", "400: too long"), ("fail", "out of memory"), ("cut", "an incomplete answer")]
)
def test_once_says_what_went_wrong(
    server: Server, capsys: pytest.CaptureFixture[str], question: str, message: str
) -> None:
    assert cli.main(["chat", "--url", server.url, "--once", question]) == 1
    assert message in capsys.readouterr().err


def test_the_model_sees_the_whole_conversation(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "Where?", "", "refuse", "And then?", "exit", "never asked")
    assert cli.main(["chat", "--url", server.url, "--model", "m"]) == 0
    contents = [[message["content"] for message in body["messages"]] for body in server.asked]
    # A question that was refused is forgotten.
    assert contents == [["Where?"], ["Where?", "Paris é", "refuse"], ["Where?", "Paris é", "And then?"]]
    assert "too long" in capsys.readouterr().out


def test_an_answer_is_followed_by_its_speed(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "Where?")
    assert cli.main(["chat", "--url", server.url]) == 0
    shown = r"Model: Paris é\n\[4 tokens, [\d.]+ tok/s, first token after \d+\.\d\d s\]\n"
    assert re.search(shown, capsys.readouterr().out)


def test_a_new_conversation_keeps_the_system_message_only(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "1", "/new", "2", "/help")
    assert cli.main(["chat", "--url", server.url, "--system", "S"]) == 0
    assert [message["content"] for message in server.asked[-1]["messages"]] == ["S", "2"]
    assert "begin a new conversation" in capsys.readouterr().out


def test_a_question_of_several_lines(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    type_in(monkeypatch, "one\\", "two\\", "three", "four")
    assert cli.main(["chat", "--url", server.url]) == 0
    assert [body["messages"][-1]["content"] for body in server.asked] == ["one\ntwo\nthree", "four"]


@pytest.mark.parametrize(("question", "advice"), [("busy", "try again in 7 s"), ("locked", "--api-key-file FILE")])
def test_a_refusal_says_what_to_do(
    server: Server, capsys: pytest.CaptureFixture[str], question: str, advice: str
) -> None:
    assert cli.main(["chat", "--url", server.url, "--once", question]) == 1
    assert advice in capsys.readouterr().err


def test_questions_are_kept_for_their_owner_alone(server: Server, state: Path) -> None:
    """In a terminal of its own: without one, Python reads a line as it is."""
    code = f"import sys; sys.path.insert(0, {str(SERVICE)!r}); from xpuserve.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "chat", "--url", server.url]
    for typed in (b"Where?\nexit\n", b"\x1b[A\x1b[A\nexit\n"):  # Up, up: past "exit"
        leader, terminal = os.openpty()
        environment = {**os.environ, "TERM": "xterm"}
        with subprocess.Popen(command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment) as process:
            os.close(terminal)
            os.write(leader, typed)
            with suppress(OSError):  # the other end closes
                while os.read(leader, 1000):
                    pass
        os.close(leader)
        assert process.returncode == 0
    assert [body["messages"][-1]["content"] for body in server.asked] == ["Where?"] * 2
    path = state / "xpuserve/questions"
    assert path.stat().st_mode & 0o777 == 0o600


class Person:
    """Sits at a terminal."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._shown = b""

    def types(self, keys: bytes) -> None:
        os.write(self._leader, keys)

    def sees(self, text: str) -> None:
        """Wait until this is shown, after what was seen before."""
        while text.encode() not in self._shown:
            assert select.select([self._leader], [], [], 10)[0], self._shown
            self._shown += os.read(self._leader, 1000)
        self._shown = self._shown.partition(text.encode())[2]


@contextmanager
def seated(server: Server) -> Iterator[tuple[Person, subprocess.Popen[bytes]]]:
    """At a terminal that is the process' own, so that Ctrl-C is a key and not a signal of the test's."""
    code = (
        "import fcntl, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
        "signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"sys.path.insert(0, {str(SERVICE)!r}); from xpuserve.cli import main; sys.exit(main())"
    )
    leader, terminal = pty.openpty()
    # Whoever runs the tests may have Python show everything at once.
    environment = {**os.environ, "TERM": "xterm", "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        [sys.executable, "-c", code, "chat", "--url", server.url],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment,
        start_new_session=True,
    ) as process:
        os.close(terminal)
        try:
            yield Person(leader), process
        finally:
            process.kill()
            os.close(leader)


def test_a_person_at_a_terminal_stops_an_answer_and_begins_anew(server: Server) -> None:
    with seated(server) as (person, process):
        person.sees("You: ")
        person.types(b"hang\n")
        person.sees("Model: Paris é")  # while the answer is under way
        person.types(b"\x03")
        person.sees("(stopped)")
        person.sees("You: ")
        person.types(b"And then?\n")
        person.sees("Model: Paris é")
        person.sees("[4 tokens, ")
        person.sees("You: ")
        person.types(b"/new\n")
        person.sees("(a new conversation)")
        person.sees("You: ")
        person.types(b"Where?\n")
        person.sees("Model: Paris é")
        person.sees("You: ")
        person.types(b"\x04")
        assert process.wait(60) == 0
    contents = [[message["content"] for message in body["messages"]] for body in server.asked]
    assert contents == [["hang"], ["hang", "Paris é", "And then?"], ["Where?"]]


def test_a_home_that_cannot_be_written_is_no_reason_not_to_talk(
    server: Server, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state.write_text("a file, not a directory")
    type_in(monkeypatch, "Where?")
    assert cli.main(["chat", "--url", server.url]) == 0
    assert len(server.asked) == 1


def test_a_conversation_longer_than_the_context_loses_its_beginning(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    type_in(monkeypatch, "1", "2", "shorten", "4")
    assert cli.main(["chat", "--url", server.url, "--system", "S"]) == 0
    assert [message["content"] for message in server.asked[-1]["messages"]] == (
        ["S", "2", "Paris é", "shorten", "Paris é", "4"]
    )
    assert "too long" not in capsys.readouterr().out


def test_what_a_terminal_cannot_show_is_replaced(server: Server) -> None:
    code = f"import sys; sys.path.insert(0, {str(SERVICE)!r}); from xpuserve.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "chat", "--url", server.url, "--once", "Where?"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    assert subprocess.check_output(command, env=environment) == b"Paris ?\n"


@pytest.mark.parametrize("question", ["odd", "text"])
def test_a_server_of_another_kind(server: Server, capsys: pytest.CaptureFixture[str], question: str) -> None:
    assert cli.main(["chat", "--url", server.url, "--once", question]) == 1
    assert "does not speak OpenAI's API" in capsys.readouterr().err


def test_ctrl_c_with_no_answer_to_stop_does_not_leave(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = iter([KeyboardInterrupt(), EOFError()])

    def press(prompt: str) -> str:
        raise next(keys)

    monkeypatch.setattr(builtins, "input", press)
    assert cli.main(["chat", "--url", server.url]) == 0
    assert next(keys, None) is None


def test_nothing_listens(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert cli.main(["chat", "--url", url, "--once", "x"]) == 1
    assert f"no server answers at {url}" in capsys.readouterr().err


@pytest.mark.parametrize("url", ["ftp://x", "http://", "http://x:port"])
def test_not_an_address(capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert cli.main(["chat", "--url", url, "--once", "x"]) == 2
    assert "is not a server address" in capsys.readouterr().err


@contextmanager
def talking(server: Server) -> Iterator[subprocess.Popen[bytes]]:
    """In a process of its own, with no package but Python's: -I -S hides the others."""
    # A shell that starts a command in the background has it ignore Ctrl-C, and so its children.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler);"
        f"sys.path.insert(0, {str(SERVICE)!r}); from xpuserve.cli import main; sys.exit(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-S", "-u", "-c", code, "chat", "--url", server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        yield process


def type_to(process: subprocess.Popen[bytes], line: bytes) -> None:
    assert process.stdin
    process.stdin.write(line)
    process.stdin.flush()


def leave(process: subprocess.Popen[bytes]) -> str:
    """Press Ctrl-D; the result is what was shown and not read yet."""
    assert process.stdin and process.stdout
    process.stdin.close()
    return process.stdout.read().decode()


def test_ctrl_c_stops_the_answer_and_ctrl_d_leaves(server: Server) -> None:
    with talking(server) as process:
        type_to(process, b"hang\n")
        assert process.stdout
        seen = b""
        while not seen.endswith("é".encode()):
            seen += process.stdout.read(1)
        process.send_signal(signal.SIGINT)
        type_to(process, b"Where?\n")
        rest = leave(process)
    assert process.returncode == 0
    assert "(stopped)" in rest
    assert rest.count("Paris é") == 1
    assert [m["content"] for m in server.asked[1]["messages"]] == ["hang", "Paris é", "Where?"]


def test_a_question_that_is_stopped_before_its_answer_is_forgotten(server: Server) -> None:
    with talking(server) as process:
        type_to(process, b"nothing\n")
        wait_for(lambda: len(server.asked) == 1)
        process.send_signal(signal.SIGINT)
        type_to(process, b"Where?\n")
        assert "(stopped)" in leave(process)
    assert process.returncode == 0
    assert [m["content"] for m in server.asked[1]["messages"]] == ["Where?"]
