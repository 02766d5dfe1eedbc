"""Embedding and rerank models in the engine's process, over a channel of their own: neither waits for a step of the
chat model, nor a step for them.

A message to the process is ["embed", texts] or ["rank", query, texts]. The answer is ["done", results] or ["failed",
kind of error, message].
"""

from __future__ import annotations

import base64
import logging
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence
from typing import Any, Optional

from xpuserve.engine.backend import EngineLostError, TextModels
from xpuserve.engine.channel import Channel, ChannelError
from xpuserve.engine.messages import RemoteError
from xpuserve.engine.runner import OutOfMemoryError

Count = Callable[[Sequence[str], Optional[str]], list[int]]

log = logging.getLogger(__name__)


class RemoteTexts(TextModels):
    """The models, as the service sees them."""

    def __init__(self, timeout: float) -> None:
        """`timeout` is the number of seconds for one call, after which the process counts as hung and is ended."""
        self._timeout = timeout
        self._to: Optional[tuple[Channel, subprocess.Popen[bytes]]] = None
        self.counts: Optional[Count] = None  # the tokenizers, loaded in the service

    def begin(self, end: socket.socket, process: subprocess.Popen[bytes]) -> None:
        """Use a new process, by this end of its channel."""
        self._to = Channel(end, self._timeout), process

    def count(self, texts: Sequence[str], query: Optional[str] = None) -> list[int]:
        """See TextModels."""
        assert self.counts  # noqa: S101 - they are loaded with the model
        return self.counts(texts, query)

    def embed(self, texts: Sequence[str]) -> list[bytes]:
        """See TextModels."""
        return [base64.b64decode(vector) for vector in self._call(["embed", list(texts)])]

    def rank(self, query: str, texts: Sequence[str]) -> list[float]:
        """See TextModels."""
        return [float(score) for score in self._call(["rank", query, list(texts)])]

    def _call(self, message: list[Any]) -> list[Any]:
        if self._to is None:
            raise EngineLostError("the engine's process has not started")
        channel, process = self._to
        try:
            channel.send(message)
            answers = channel.receive(self._timeout)
        except ChannelError as error:
            raise EngineLostError(str(error)) from None
        if answers is None:
            raise EngineLostError("the engine's process ended")
        if not answers:
            log.error("texts were not computed in %g s: the engine's process is stopped", self._timeout)
            process.send_signal(signal.SIGABRT)  # it logs where its threads are
            raise EngineLostError("the engine's process hangs")
        outcome, *values = answers[0]
        if outcome == "done":
            results: list[Any] = values[0]
            return results
        kind, text = values
        raise OutOfMemoryError(text) if kind == OutOfMemoryError.__name__ else RemoteError(text, kind)


def serve(channel: Channel, models: TextModels) -> threading.Thread:
    """Answer in a thread, in the engine's process, until the service closes the channel."""
    thread = threading.Thread(target=_answer, args=(channel, models), name="texts", daemon=True)
    thread.start()
    return thread


def _answer(channel: Channel, models: TextModels) -> None:
    try:
        while messages := channel.receive():
            for message in messages:
                channel.send(_answered(models, *message))
    except ChannelError as error:
        log.error("the service does not read the results of texts: %s", error)


def _answered(models: TextModels, work: str, *arguments: Any) -> list[Any]:
    try:
        if work == "embed":
            return ["done", [base64.b64encode(vector).decode("ascii") for vector in models.embed(*arguments)]]
        return ["done", models.rank(*arguments)]
    except Exception as error:
        if not isinstance(error, OutOfMemoryError):
            log.exception("texts could not be computed")
        return ["failed", type(error).__name__, str(error)]
