"""A conversation in the terminal, over HTTP. It needs only Python's own library."""

from __future__ import annotations

import io
import os
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from xpuserve.client import APIClient, ClientError
from xpuserve.terminal import shown

HELP = """\
/new     begin a new conversation
/help    this
exit     leave, as does Ctrl-D
Ctrl-C   stop an answer; its text so far stays in the conversation
\\        at the end of a line: continue the question in the next line"""
# Advice about a refusal.
_ADVICE = {
    401: "give an API key with --api-key-file FILE or in XPUSERVE_API_KEY",
    429: "try again in {} s",
    503: "try again in {} s",
}
_HISTORY_LINES = 1000


def run(client: APIClient, model: str | None, system: str | None, once: str | None, options: dict[str, Any]) -> int:
    """Hold a conversation, or ask one question; returns the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # models write characters that not every terminal has
    try:
        body = {"model": model or client.first_model(), **options}
        history = [{"role": "system", "content": system}] if system else []
        if once is not None:
            print_answer(client, {**body, "messages": [*history, {"role": "user", "content": once}]})
        else:
            with questions_kept():
                converse(client, body, history)
    except ClientError as error:
        print(f"xpuserve: error: {advised(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def converse(client: APIClient, body: dict[str, Any], system: list[dict[str, str]]) -> None:
    """Ask and answer until Ctrl-D or 'exit'; the model sees the whole conversation each time."""
    model = shown(body["model"], keep="")
    print(f"{model} at {client.url}. Ctrl-C stops an answer; Ctrl-D or 'exit' leaves; /help says more.")
    history = system
    while True:
        try:
            question = read_question()
        except KeyboardInterrupt:  # too late to stop an answer
            print("\n(Ctrl-D leaves)")
            continue
        except EOFError:
            print()
            return
        if question in ("exit", "quit", "/exit", "/quit"):
            return
        if question == "/new":
            history = system
            print("(a new conversation)")
        elif question == "/help":
            print(HELP)
        elif question:
            print("Model: ", end="", flush=True)
            try:
                history = ask(client, body, [*history, {"role": "user", "content": question}])
            except ClientError as error:
                print(f"\n({advised(error)})")


def read_question() -> str:
    """The person's input, without the backslash at the end of every line but the last."""
    lines = [input("\nYou: ")]
    while lines[-1].endswith("\\"):
        lines[-1] = lines[-1][:-1]
        lines.append(input("...  "))
    return "\n".join(lines).strip()


@contextmanager
def questions_kept() -> Iterator[None]:
    """Line editing, if Python has it; the arrow keys also find questions of earlier sessions."""
    try:
        import readline  # noqa: PLC0415 - Python can be built without
    except ImportError:
        yield
        return
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    path = Path(state) / "xpuserve/questions"
    with suppress(OSError):
        readline.read_history_file(path)
    readline.set_history_length(_HISTORY_LINES)
    try:
        yield
    finally:
        with suppress(OSError):  # a home directory that is not writable
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            path.touch(0o600)  # GNU's readline keeps others out by itself, libedit does not
            readline.write_history_file(path)


def ask(client: APIClient, body: dict[str, Any], messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Print the answer to a conversation; drops the oldest turns until the rest fits the model's context.

    Returns the conversation with the answer, without the question if no text of an answer came.
    """
    oldest = 1 if messages[0]["role"] == "system" else 0
    while True:
        try:
            answer = print_answer(client, {**body, "messages": messages}, speed=True)
        except ClientError as error:
            if error.code != "context_length_exceeded" or len(messages) <= oldest + 2:
                raise
            messages = messages[:oldest] + messages[oldest + 2 :]
        else:
            return [*messages, {"role": "assistant", "content": answer}] if answer else messages[:-1]


def print_answer(client: APIClient, body: dict[str, Any], *, speed: bool = False) -> str:
    """Print an answer as it comes, and then its speed; Ctrl-C ends it early. Returns the text that came."""
    text, tokens, times = "", 0, [time.monotonic()]
    with closing(client.events(body)) as events:
        try:
            for event in events:
                tokens = event.usage.get("completion_tokens", tokens)
                if event.text:
                    times.append(time.monotonic())
                    text += event.text
                    print(shown(event.text), end="", flush=True)
        except KeyboardInterrupt:
            print(" (stopped)", end="")
    print()
    if speed and text:
        print(quiet(described(tokens, times)))
    return text


def described(tokens: int, times: list[float]) -> str:
    """The speed of an answer: `times` are those of the request and of the answer's pieces."""
    parts = []
    if tokens:
        parts.append(f"{tokens} token{'s' * (tokens > 1)}")
    if tokens > 1 and times[-1] > times[1]:
        rate = (tokens - 1) / (times[-1] - times[1])
        parts.append(f"{rate:.{0 if rate >= 10 else 1}f} tok/s")
    parts.append(f"first token after {times[1] - times[0]:.2f} s")
    return f"[{', '.join(parts)}]"


def quiet(text: str) -> str:
    """The text, dimmed if possible and wanted."""
    return f"\033[2m{text}\033[0m" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def advised(error: ClientError) -> str:
    """The error, and advice if there is any."""
    advice = _ADVICE.get(error.status, "")
    if not advice or ("{}" in advice and not error.retry_after):
        return str(error)
    return f"{error}; {advice.format(error.retry_after)}"
