"""A client that costs little: it shares the processors with the service."""

from __future__ import annotations

import http.client
import json
import re
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Optional, Union

#: Seconds without a byte, after which a client gives up.
TIMEOUT = 300
#: A text to continue, or several.
Prompt = Union[str, list[str]]
_NUMBER = re.compile(r"^([a-z_:]+)(?:\{.*\})? (\S+)$", re.MULTILINE)


@dataclass
class Reply:
    """What came of a request for a stream. `status` is 0 where not one byte of an answer came."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)  # the last of a whole stream is "[DONE]"
    broken: str = ""  # how the connection ended before the answer

    @property
    def text(self) -> str:
        """The answer."""
        return "".join(choice["text"] for event in self.events[:-1] for choice in event["choices"])

    def complete(self, tokens: int) -> bool:
        """Whether a stream of so many tokens at most came whole: a finish reason that fits, the counts, [DONE]."""
        if self.status != 200 or self.broken or self.events[-1:] != ["[DONE]"]:
            return False
        *chunks, usage, _ = self.events
        if any("error" in event for event in (*chunks, usage)):
            return False
        reasons = [choice["finish_reason"] for event in chunks for choice in event["choices"]]
        counted = usage["usage"]["completion_tokens"]
        reason = "length" if counted == tokens else "stop"
        return counted <= tokens and reasons[-1] == reason and not any(reasons[:-1])


class LoadClient:
    """Of one service."""

    def __init__(self, port: int, model: str) -> None:
        self.port = port
        self.model = model
        self.key = ""

    def connection(self) -> http.client.HTTPConnection:
        """A connection that nothing was sent on."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=TIMEOUT)

    def headers(self) -> dict[str, str]:
        """What goes with every request."""
        return {"Content-Type": "application/json", **({"Authorization": f"Bearer {self.key}"} if self.key else {})}

    def body(self, prompt: Prompt, tokens: int, **more: Any) -> bytes:
        """A request for a stream."""
        wanted = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "stream": True}
        return json.dumps({**wanted, "stream_options": {"include_usage": True}, **more}).encode()

    def ask(self, prompt: Prompt, tokens: int, **more: Any) -> Reply:
        """Ask, and read the answer to its end."""
        reply = Reply()
        try:
            for _ in self.stream(reply, prompt, tokens, **more):
                pass
        except (OSError, http.client.HTTPException) as error:
            reply.broken = repr(error)
        return reply

    def stream(self, reply: Reply, prompt: Prompt, tokens: int, **more: Any) -> Generator[None, None, None]:
        """Ask, and yield after each event of the answer, which goes into `reply`; leave where the caller does."""
        connection = self.connection()
        try:
            connection.request("POST", "/v1/completions", self.body(prompt, tokens, **more), self.headers())
            response = connection.getresponse()
            reply.headers = {name.lower(): value for name, value in response.getheaders()}
            reply.status = response.status
            if reply.status != 200:
                reply.events.append(json.loads(response.read()))
                return
            while line := response.readline():
                if line.startswith(b"data: "):
                    data = line[6:].strip()
                    reply.events.append("[DONE]" if data == b"[DONE]" else json.loads(data))
                    yield
        finally:
            connection.close()

    def status(self, path: str) -> int:
        """The status of a page; 0 where nobody answers."""
        connection = self.connection()
        try:
            connection.request("GET", path, headers=self.headers())
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def metrics(self) -> Counter[str]:
        """What the service counts, all labels together."""
        connection = self.connection()
        try:
            connection.request("GET", "/metrics")
            found: Counter[str] = Counter()
            for name, value in _NUMBER.findall(connection.getresponse().read().decode()):
                found[name] += float(value)  # type: ignore[assignment]
            return found
        finally:
            connection.close()

    def at_rest(self) -> Optional[str]:
        """What is under way though nobody has asked; None where nothing is."""
        counted = self.metrics()
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        return next((f"{name} {counted[name]}" for name in names if counted[name]), None)
