"""A client of OpenAI's API, for the terminal and for measuring. It needs only Python's own library."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Optional
from urllib.parse import urlsplit

from xpuserve.terminal import shown
from xpuserve.tls import trusting

# Time limit for the first token; a long queue may take as long.
TIMEOUT_SECONDS = 600
# Wildcard addresses of a service, and the addresses to reach it then.
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104
_THOUGHT = "reasoning_content"
# Errors from JSON of an unexpected shape.
_NONSENSE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
# Longest line of an answer, in bytes, and longest complete answer or refusal.
_LONGEST = 16 * 1024**2


class Local(NamedTuple):
    """The address of a node's own service, and its certificate."""

    url: str
    certificate: Optional[Path]


def local(configuration: Path) -> Local:
    """From the service's configuration; without one, its defaults."""
    try:
        settings = json.loads(configuration.read_text(encoding="utf-8"))
        host, port, file = (settings.get(name, "") for name in ("host", "port", "tls_certificate"))
    except (OSError, ValueError, AttributeError):
        host, port, file = "", 0, ""
    host = _EVERYWHERE.get(host, host or "127.0.0.1")
    address = f"[{host}]" if ":" in host else host
    return Local(f"{'https' if file else 'http'}://{address}:{port or 8000}", Path(file) if file else None)


class ClientError(Exception):
    """The server did not answer as expected; the message is for people, one line for any terminal.

    `status` is HTTP's, 0 without one; `retry_after` is a number of seconds, "" without one.
    """

    def __init__(self, message: str, status: int = 0, code: Optional[str] = None, retry_after: str = "") -> None:
        super().__init__(shown(message, keep=""))
        self.status = status
        self.code = code
        self.retry_after = retry_after if retry_after.isdecimal() else ""


class Event(NamedTuple):
    """A piece of an answer, or its metadata."""

    text: str
    thought: str  # what some servers send separately: a model that thinks first
    usage: dict[str, int]  # token counts; set only in one of the last events
    finished: bool = False  # only token counts follow


class APIClient:
    """An OpenAI-compatible server. Every request has its own connection, so threads may share a client."""

    def __init__(
        self, url: str, key: str = "", timeout: float = TIMEOUT_SECONDS, *, tls: Optional[ssl.SSLContext] = None
    ) -> None:
        """`tls` has the trusted certificates for an https address; None: those of the system."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        try:
            port = parts.port
        except ValueError:
            port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise ClientError(f"{url} is not a server address; write it like http://127.0.0.1:8000")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._connect: partial[http.client.HTTPConnection] = partial(
            http.client.HTTPConnection, parts.hostname, port, timeout=timeout
        )
        if parts.scheme == "https":
            self._connect = partial(
                http.client.HTTPSConnection, parts.hostname, port, timeout=timeout, context=tls or trusting()
            )

    def first_model(self) -> str:
        """The name of the server's first model."""
        with self._request("GET", "/v1/models") as response:
            try:
                return _text(json.loads(response.read(_LONGEST))["data"][0]["id"])
            except (*_NONSENSE, OSError, http.client.HTTPException):
                raise self._stranger() from None

    def events(self, body: dict[str, Any]) -> Generator[Event, None, None]:
        """Stream the answer to a chat request. Closing the iterator stops the server's work."""
        body = {**body, "stream": True, "stream_options": {"include_usage": True}}
        with self._request("POST", "/v1/chat/completions", body) as response:
            finished = False
            while line := _line(response):
                if not line.startswith(b"data: "):
                    continue
                data = line[len(b"data: ") :].strip()
                if data == b"[DONE]":
                    return
                event = self._event(data)
                finished = finished or event.finished
                yield event
            if not finished:  # not every server sends [DONE]
                raise ClientError("the server closed an incomplete answer")

    def usage(self, body: dict[str, Any]) -> dict[str, int]:
        """Request an answer in one piece, and return its token counts."""
        with self._request("POST", "/v1/chat/completions", body) as response:
            try:
                return _counts(json.loads(response.read(_LONGEST)).get("usage"))
            except (*_NONSENSE, OSError, http.client.HTTPException):
                raise self._stranger() from None

    def _event(self, data: bytes) -> Event:
        try:
            event = json.loads(data)
            if "error" in event:
                raise ClientError(_text(event["error"]["message"]), code=event["error"].get("code"))
            deltas = [choice["delta"] for choice in event["choices"]]
            said, thought = ("".join(delta.get(name) or "" for delta in deltas) for name in ("content", _THOUGHT))
            finished = any(choice.get("finish_reason") for choice in event["choices"])
            return Event(said, thought, _counts(event.get("usage")), finished)
        except _NONSENSE:
            raise self._stranger() from None

    @contextmanager
    def _request(
        self, method: str, path: str, body: Optional[dict[str, Any]] = None
    ) -> Iterator[http.client.HTTPResponse]:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json", "Connection": "close", **self._headers}
        with closing(self._connect()) as connection:
            try:
                connection.request(method, self._path + path, data, headers)
                response = connection.getresponse()
                text = "" if response.status == 200 else response.read(_LONGEST).decode("utf-8", "replace")
            except (OSError, http.client.HTTPException) as error:
                raise ClientError(f"no server answers at {self.url}: {error}") from None
            with response:
                if response.status != 200:
                    raise self._refusal(response, text)
                yield response

    def _refusal(self, response: http.client.HTTPResponse, text: str) -> ClientError:
        try:
            found = json.loads(text)["error"]
            text, code = _text(found["message"]), found.get("code")
        except _NONSENSE:
            text, code = response.reason, None
        message = f"{self.url} says {response.status}: {text}"
        return ClientError(message, response.status, code, response.headers.get("Retry-After", ""))

    def _stranger(self) -> ClientError:
        return ClientError(f"{self.url} does not speak OpenAI's API")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _counts(usage: Any) -> dict[str, int]:
    return {
        name: count for name, count in (usage or {}).items() if isinstance(count, int) and not isinstance(count, bool)
    }


def _line(response: http.client.HTTPResponse) -> bytes:
    try:
        line = response.readline(_LONGEST)
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ClientError(f"the connection failed: {error}") from None
    if len(line) == _LONGEST:
        raise ClientError("the server sends an endless line")
    return line
