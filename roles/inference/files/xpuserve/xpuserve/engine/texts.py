"""Embeddings of texts, and their relevance to a query: the queue of such requests, and the thread that gets them
computed, beside the answers of the chat model.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Optional

from xpuserve.engine.backend import Backend, EngineLostError
from xpuserve.engine.queue import BoundedQueue, QueueFullError
from xpuserve.engine.request import Failed
from xpuserve.engine.runner import OutOfMemoryError
from xpuserve.logs import fields
from xpuserve.metrics import Metrics

# Texts that are computed together, and their tokens, padding included: another client's turn comes after that.
PORTION_TEXTS, PORTION_TOKENS = 32, 1024

log = logging.getLogger(__name__)


class TextsFailedError(Exception):
    """A request has no result, for the reason in `event`."""

    def __init__(self, event: Failed) -> None:
        super().__init__(event.message)
        self.event = event


@dataclass(eq=False)
class TextJob:
    """A request for embeddings of texts or, with a query, for their relevance to it; `lengths` are in tokens."""

    id: str
    texts: Sequence[str]
    lengths: Sequence[int]
    query: Optional[str] = None
    client: str = ""
    weight: float = 1.0
    key: str = ""
    low_priority: bool = False
    submitted: float = field(default_factory=time.monotonic)
    started: float = 0.0
    results: list[Any] = field(default_factory=list)  # of the texts that are done
    future: Future[list[Any]] = field(default_factory=Future)

    @property
    def kind(self) -> str:
        """The kind of work: embed or rerank."""
        return "embed" if self.query is None else "rerank"

    @property
    def portion(self) -> int:
        """The number of texts of its next turn."""
        left = self.lengths[len(self.results) :][:PORTION_TEXTS]
        longest = 0
        for number, length in enumerate(left):
            longest = max(longest, length)
            if number and (number + 1) * longest > PORTION_TOKENS:
                return number
        return len(left)

    @property
    def most_tokens(self) -> int:
        """The tokens of its next turn."""
        done = len(self.results)
        return sum(self.lengths[done : done + self.portion])

    @property
    def tokens(self) -> int:
        """The tokens that are left."""
        return sum(self.lengths[len(self.results) :])


class TextQueue:
    """The requests for one backend's embedding and rerank models, a portion of one at a time."""

    def __init__(
        self, backend: Backend, metrics: Metrics, ready: Callable[[], bool], *, requests: int, tokens: int
    ) -> None:
        """`ready` says whether the models are loaded; so many requests, and tokens, may wait."""
        self._backend = backend
        self._metrics = metrics
        self._ready = ready
        self._changed = threading.Condition()  # the following fields change only under this lock
        self._waiting = BoundedQueue[TextJob](requests, tokens)
        self._closed: Optional[Failed] = None  # the refusal for new requests
        self._aborted = False
        self._thread: Optional[threading.Thread] = None

    @property
    def waiting(self) -> int:
        """Number of requests that wait for the device or for their tokens to be counted."""
        return self._waiting.total

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Reserve a client's place while the tokens of its texts are counted, or raise QueueFullError."""
        with self._changed:
            self._waiting.promise(client, 1)
        try:
            yield
        finally:
            with self._changed:
                self._waiting.release(client, 1)

    def count(self, texts: Sequence[str], query: Optional[str] = None) -> list[int]:
        """See TextModels."""
        models = self._backend.texts
        if models is None:
            raise EngineLostError("the models are not loaded")
        return models.count(texts, query)

    def submit(self, job: TextJob) -> None:
        """Queue a request, or raise QueueFullError. Its future gets the results of all texts, or a TextsFailedError."""
        with self._changed:
            if self._closed:
                job.future.set_exception(TextsFailedError(self._closed))
                return
            if not self._waiting.has_room(job.client, 1, job.tokens):
                raise QueueFullError
            self._waiting.extend([job])
            if not self._thread:
                self._thread = threading.Thread(target=self._run, name="texts", daemon=True)
                self._thread.start()
            self._changed.notify()

    def cancel(self, job: TextJob) -> None:
        """Cancel a request, if it has no result yet: it leaves the queue now, or the device after its portion."""
        with self._changed:
            job.future.cancel()
            waits = job in self._waiting.of(job.client)
            if waits:
                self._waiting.remove(job)
        if waits:
            self._over(job, "abort")

    def drain(self, event: Failed) -> None:
        """End waiting requests that have not begun, and all later ones, with `event`."""
        self._close(event, lambda job: not job.started)

    def abort(self, event: Failed) -> None:
        """End every request, and every later one, with `event`, and the thread."""
        self._aborted = True
        self._close(event, lambda job: True)

    def _close(self, event: Failed, which: Callable[[TextJob], bool]) -> None:
        with self._changed:
            self._closed = event
            ended = [job for job in self._waiting if which(job)]
            for job in ended:
                self._waiting.remove(job)
            self._changed.notify()
        for job in ended:
            job.future.set_exception(TextsFailedError(event))
            self._over(job, "abort")

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._waiting) or self._aborted)
                job = self._waiting.head()
                if job is None:
                    return
                self._waiting.take(job)
            self._work(job)

    def _work(self, job: TextJob) -> None:
        """Compute one portion of a request."""
        job.started = job.started or time.monotonic()
        failed: Optional[Failed] = None
        try:
            job.results += self._compute(job)
        except Exception as error:
            failed = _failed(error, job)
        with self._changed:
            ended = job.future.cancelled() or failed or len(job.results) == len(job.texts)
            if not ended and self._aborted:
                failed = self._closed
            elif not ended:
                self._waiting.put_back([job])
                return
            if not job.future.cancelled():
                if failed:
                    job.future.set_exception(TextsFailedError(failed))
                else:
                    job.future.set_result(job.results)
        self._over(job, "abort" if job.future.cancelled() else "error" if failed else "stop")

    def _compute(self, job: TextJob) -> Sequence[Any]:
        models = self._backend.texts
        if models is None or not self._ready():
            raise EngineLostError("the engine's process ended")
        texts = job.texts[len(job.results) :][: job.portion]
        return models.embed(texts) if job.query is None else models.rank(job.query, texts)

    def _over(self, job: TextJob, outcome: str) -> None:
        """A request is complete, cancelled, or failed."""
        now = time.monotonic()
        done = sum(job.lengths[: len(job.results)])
        self._metrics.texts_over(job.kind, outcome, done, now - job.submitted, job.key)
        line = fields(
            request_id=job.id,
            key=job.key or None,
            outcome=outcome,
            kind=job.kind,
            texts=len(job.texts),
            prompt_tokens=sum(job.lengths),
            queue_seconds=(job.started or now) - job.submitted,
            seconds=now - job.submitted,
        )
        log.info("request over", extra=line)


def _failed(error: Exception, job: TextJob) -> Failed:
    if isinstance(error, EngineLostError):
        return Failed("the engine ended, and is started again", "engine_restarting")
    if isinstance(error, OutOfMemoryError):
        log.warning("out of memory: %s", error, extra=fields(request_id=job.id))
        return Failed("not enough device memory for this request; try again later", "out_of_memory")
    log.error("request failed", exc_info=error, extra=fields(request_id=job.id))
    return Failed("the engine failed")
