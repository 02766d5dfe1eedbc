"""A conversation in the terminal, over HTTP. Only Python's own library is used."""

from __future__ import annotations

import http.client
import io
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

# A server that answers at all sends the first token within this; a long queue may take as long.
TIMEOUT_SECONDS = 600


class ChatError(Exception):
    """The server cannot be talked to; the message is for the person at the terminal."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class Client:
    """An OpenAI-compatible server."""

    def __init__(self, url: str, key: str = "") -> None:
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ChatError(f"{url} is not a server's address; an example: http://127.0.0.1:8000")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connect = partial(connect, parts.hostname, port, timeout=TIMEOUT_SECONDS)

    def first_model(self) -> str:
        """The name of the first model that the server has."""
        with self._request("GET", "/v1/models") as response:
            try:
                return str(json.load(response)["data"][0]["id"])
            except (ValueError, LookupError, TypeError, OSError, http.client.HTTPException):
                raise ChatError(f"{self.url} does not speak OpenAI's API") from None

    def answer(self, body: dict[str, Any]) -> Iterator[str]:
        """Stream the answer to a chat request, piece by piece. Closing the iterator stops the server's work."""
        with self._request("POST", "/v1/chat/completions", {**body, "stream": True}) as response:
            for line in response:
                if not line.startswith(b"data: "):
                    continue
                data = line[len(b"data: ") :].strip()
                if data == b"[DONE]":
                    return
                try:
                    event = json.loads(data)
                    if "error" in event:
                        raise ChatError(event["error"]["message"])
                    text = "".join(choice["delta"].get("content") or "" for choice in event["choices"])
                except (ValueError, LookupError, TypeError, AttributeError):
                    raise ChatError(f"{self.url} does not speak OpenAI's API") from None
                if text:
                    yield text
            raise ChatError("the server ended the answer before it was complete")

    def _request(self, method: str, path: str, body: dict[str, Any] | None = None) -> http.client.HTTPResponse:
        connection = self._connect()
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", "Connection": "close", **self._headers}
        try:
            connection.request(method, self._path + path, data, headers)
            response = connection.getresponse()
            text = "" if response.status == 200 else response.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise ChatError(f"nothing answers at {self.url}: {error}") from None
        if response.status != 200:
            try:
                found = json.loads(text)["error"]
                text, code = found["message"], found.get("code")
            except (ValueError, LookupError, TypeError, AttributeError):
                text, code = response.reason, None
            raise ChatError(f"{self.url} says {response.status}: {text}", code)
        return response


def run(
    url: str, model: str | None, system: str | None, once: str | None, options: dict[str, Any], *, key: str = ""
) -> int:
    """Hold a conversation, or ask one question; the result is the exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # models write characters that not every terminal has
    try:
        client = Client(url, key)
        body = {"model": model or client.first_model(), **options}
        history = [{"role": "system", "content": system}] if system else []
        if once is not None:
            print_answer(client, {**body, "messages": [*history, {"role": "user", "content": once}]})
        else:
            converse(client, body, history)
    except ChatError as error:
        print(f"xpuserve: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def converse(client: Client, body: dict[str, Any], history: list[dict[str, str]]) -> None:
    """Ask and answer until Ctrl-D or 'exit'; the model sees the whole conversation each time."""
    with suppress(ImportError):
        import readline  # noqa: F401, PLC0415 - gives input() line editing
    print(f"{body['model']} at {client.url}. Ctrl-C stops an answer; Ctrl-D or 'exit' leaves.")
    while True:
        try:
            question = input("\nYou: ").strip()
        except KeyboardInterrupt:  # too late to stop an answer
            continue
        except EOFError:
            print()
            return
        if question in ("exit", "quit"):
            return
        if not question:
            continue
        print("Model: ", end="", flush=True)
        try:
            history = ask(client, body, [*history, {"role": "user", "content": question}])
        except ChatError as error:
            print(f"\n({error})")


def ask(client: Client, body: dict[str, Any], messages: list[dict[str, str]]) -> list[dict[str, str]]:
    """Print the answer to a conversation, whose oldest turns are forgotten until the rest fits the model's context.

    The result is the conversation with the answer.
    """
    oldest = 1 if messages[0]["role"] == "system" else 0
    while True:
        try:
            answer = print_answer(client, {**body, "messages": messages})
        except ChatError as error:
            if error.code != "context_length_exceeded" or len(messages) <= oldest + 2:
                raise
            messages = messages[:oldest] + messages[oldest + 2 :]
        else:
            return [*messages, {"role": "assistant", "content": answer}]


def print_answer(client: Client, body: dict[str, Any]) -> str:
    """Print an answer as it comes; Ctrl-C ends it early. The result is the text that came."""
    text = ""
    stream = client.answer(body)
    try:
        for piece in stream:
            text += piece
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        stream.close()  # type: ignore[attr-defined]
        print(" (stopped)", end="")
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ChatError(f"the connection broke: {error}") from None
    print()
    return text
