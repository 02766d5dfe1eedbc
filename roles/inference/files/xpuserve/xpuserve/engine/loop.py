"""The engine's thread: it alone owns the device, and steps the requests there; of an engine in a process of its own,
it sends what may block, and the web server's loop takes the results.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Optional

from xpuserve.dialects.base import Dialect
from xpuserve.dialects.generic import Generic
from xpuserve.engine import prompts
from xpuserve.engine.backend import Backend, EngineError, EngineLostError
from xpuserve.engine.detokenizer import Detokenizer
from xpuserve.engine.encoder import Encoder
from xpuserve.engine.generation import Generation
from xpuserve.engine.queue import BoundedQueue, QueueFullError
from xpuserve.engine.request import Failed, Message, Request, SamplingParams
from xpuserve.engine.runner import OneAtATime, Output, Runner, TooLargeError, run_single
from xpuserve.engine.texts import TextQueue
from xpuserve.engine.vocabulary import fast_decode, hidden, showing
from xpuserve.logs import fields
from xpuserve.metrics import Metrics
from xpuserve.settings import QUEUE_REQUESTS, QUEUE_TOKENS

# Calls a function on another thread whenever a descriptor is readable, until it returns False; returns a function that
# ends this, after which no call is in progress.
Listen = Callable[[int, Callable[[], bool]], Callable[[], None]]

MAX_RETRY_SECONDS = 60
# Seconds between restarts of an engine that ends; after so many in a row, requests do not wait for the next.
MAX_RESTART_SECONDS, HOPEFUL_RESTARTS = 60, 3
WARM_UP_TOKENS = 8
# Number of failed steps in a row, without any token, after which a probe checks whether the model still answers.
FAILED_STEPS = 3

log = logging.getLogger(__name__)


class Engine:
    """Loads a backend, warms it up, and then takes requests in the order in which they came."""

    def __init__(
        self,
        backend: Backend,
        *,
        prompt_format: str,
        warm_up: bool = True,
        queue_requests: int = QUEUE_REQUESTS,
        queue_tokens: int = QUEUE_TOKENS,
        client_batch_requests: int = 0,
        client_batch_tokens: int = 0,
        several_clients: bool = False,
        metrics: Optional[Metrics] = None,
        on_status: Callable[[str], None] = lambda status: None,
        on_ready: Callable[[], None] = lambda: None,
        on_failed: Callable[[], None] = lambda: None,
    ) -> None:
        """`client_batch_requests` limits a client's requests on the device; 0 is all, or 3/4 with `several_clients`.
        `client_batch_tokens` limits their tokens (prompts and longest answers); 0 is no limit.

        `on_status`, `on_ready` and `on_failed` are called on the engine's thread."""
        self._backend = backend
        self._prompt_format = prompt_format
        self._warm_up = warm_up
        self._on_status = on_status
        self._on_ready = on_ready
        self._on_failed = on_failed
        self._client_batch_requests = client_batch_requests
        self._client_batch_tokens = client_batch_tokens
        self._several_clients = several_clients
        self.metrics = metrics or Metrics()
        self._mean_seconds = 0.0  # that a request takes
        # The following fields change only under this lock, and only this thread waits on it.
        self._changed = threading.Condition()
        self._waiting = BoundedQueue[Request](queue_requests, queue_tokens)
        self._answers: dict[Request, Generation] = {}  # to the requests on the device
        self._progress = 0.0  # when work began or the last step ended
        self._closed: Optional[Failed] = None  # the refusal for new requests
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        limits = {"requests": queue_requests, "tokens": queue_tokens}
        self.texts = TextQueue(backend, self.metrics, lambda: self.ready, **limits)
        self._cache_usage = 0.0
        self._failed_steps = 0  # since the last token
        self._restarts = 0  # since an engine's last token
        self._listen: Optional[Listen] = None
        self._listens = False  # another thread receives results, and this one never waits for a step
        self._loss: Optional[Exception] = None  # found by the thread that receives results
        self._runner: Runner = OneAtATime(backend.generate)  # until the backend's is set
        self.ready = False
        self.trouble = ""  # why the engine is loaded again
        self.batching = ""  # the Runner's batching, once the model is loaded
        self.dialect: Dialect = Generic("")  # of the model, once it is loaded
        self.encoder = Encoder(prompt_format)

    def start(self) -> None:
        """Begin to load, in the engine's thread."""
        self._thread.start()

    def attend(self, listen: Listen) -> None:
        """Take the results of an engine in a process of its own where `listen` calls: on the web server's loop."""
        with self._changed:
            self._listen = listen
        self._notify()

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs, loading or serving."""
        return self._thread.is_alive()

    @property
    def stalled_seconds(self) -> float:
        """Seconds with work but without a completed step, since the model is loaded."""
        with self._changed:
            works = self.ready and (self._answers or self._waiting or self._runner.busy)
            return time.monotonic() - self._progress if works else 0.0

    @property
    def serving(self) -> bool:
        """Whether it accepts requests: the model is loaded, or probably will be again soon."""
        return self.alive and (self.ready or bool(self.trouble and self._restarts <= HOPEFUL_RESTARTS))

    @property
    def waiting(self) -> int:
        """Number of requests that wait for the device or for encoding."""
        return self._waiting.total + self._runner.ahead

    @property
    def running(self) -> int:
        """Number of requests on the device."""
        return max(0, len(self._answers) - self._runner.ahead)

    @property
    def retry_after(self) -> int:
        """Seconds until a request probably leaves the queue."""
        return min(MAX_RETRY_SECONDS, max(1, math.ceil(self._mean_seconds / max(1, self.running))))

    @property
    def offers(self) -> frozenset[str]:
        """Optional fields of a request that this engine supports."""
        return self._backend.offers

    def counted(self) -> str:
        """The metrics, for Prometheus."""
        process = self._backend.process
        return self.metrics.text(self.running, self.waiting, self._cache_usage, process, self.texts.waiting)

    def stop(self, timeout: float) -> None:
        """Let the thread finish what is queued and end, waiting at most `timeout` seconds."""
        with self._changed:
            self._stopping = True
        self._notify()
        self._thread.join(timeout)

    def drain(self, event: Failed) -> None:
        """End waiting requests whose reply has not begun, and all later ones, with `event`.

        A reply that begins late would soon be cut off; now its client can still try elsewhere.
        """
        with self._changed:
            self._closed = event
        self._refuse(event, lambda request: not request.begun)
        self.texts.drain(event)

    def abort(self, event: Failed) -> None:
        """End every unfinished request, and every later one, with `event`."""
        with self._changed:
            self._closed = event
            running, waiting = list(self._answers), list(self._waiting)
            for request in waiting:
                self._waiting.remove(request)
        self.texts.abort(event)
        for request in (*running, *waiting):
            request.cancelled = True
            request.deliver(event)
        for request in waiting:
            self.metrics.over(request, "abort")

    @contextmanager
    def places(self, requests: int, client: str = "") -> Iterator[None]:
        """Reserve queue slots for a client's requests while their prompts are encoded, or raise QueueFullError."""
        with self._changed:
            self._waiting.promise(client, requests, self._runner.ahead)
        try:
            yield
        finally:
            with self._changed:
                self._waiting.release(client, requests)

    def submit(self, *requests: Request) -> None:
        """Queue all of these requests, or raise QueueFullError and queue none."""
        with self._changed:
            closed = self._closed
            if not closed:
                tokens = sum(request.tokens for request in requests)
                if not self._waiting.has_room(requests[0].client, len(requests), tokens, self._runner.ahead):
                    raise QueueFullError
                if not self._answers and not self._waiting and not self._runner.busy:
                    self._progress = time.monotonic()
                self._waiting.extend(requests)
        self._notify()
        if closed:
            for request in requests:
                request.deliver(closed)

    def cancel(self, request: Request) -> None:
        """Cancel a request: it leaves the queue now, or the device after its next step."""
        request.cancelled = True
        with self._changed:
            waits = request in self._waiting.of(request.client)
            if waits:
                self._waiting.remove(request)
            runs = request in self._answers
        if waits:
            self.metrics.over(request, "abort")
        elif runs:
            self._notify()

    def _run(self) -> None:
        try:
            while self._serve():
                pass
        except BaseException:  # a library may raise anything, and the end of this thread would go unnoticed
            log.exception("the engine ended" if self.ready else "the model could not be loaded")
            self.abort(Failed("the engine ended"))
            self._on_failed()
        finally:
            self.texts.abort(Failed("the engine ended"))
            self._backend.close()

    def _serve(self) -> bool:
        """Load and serve; True if the engine has to be loaded again, False if it stops and nothing is left."""
        try:
            self._load()
            self.ready, self.trouble = True, ""
            self._on_ready()
            self._backend.when_lost(self._notify)
            while self._wait():
                if self._listen and self._runner.source >= 0:
                    self._serve_apart(self._listen)
                else:
                    self._step()
        except Exception as error:
            # An engine that never served may never do: the service manager has to see that.
            if not self._backend.restartable or not (self.ready or self.trouble):
                raise
            return self._interrupted(error)
        return False

    def _interrupted(self, error: Exception) -> bool:
        """The engine is lost: fail the requests that it had, and wait before loading it again."""
        log.error("%s; it is started again", error, exc_info=None if isinstance(error, EngineLostError) else error)
        self.ready, self.trouble = False, str(error)
        self._restarts += 1
        told = Failed("the engine ended, and is started again", "engine_restarting")
        with self._changed:
            begun = [each for each in self._answers.values() if self._runner.begun(each.request)]
            again = [request for request, each in self._answers.items() if each not in begun]
            for request in again:
                del self._answers[request]
                request.times.started = 0.0
            self._waiting.put_back(again)
        for each in begun:
            each.request.deliver(told)
            self._over(each, "error")
        if self._restarts > HOPEFUL_RESTARTS:
            self._refuse(told, lambda request: True)
        seconds = min(MAX_RESTART_SECONDS, 2 ** (self._restarts - 1))
        with self._changed:
            self._runner.close()
            return not self._changed.wait_for(lambda: self._stopping, seconds)

    def _refuse(self, event: Failed, which: Callable[[Request], bool]) -> None:
        """Fail the waiting requests that match, with `event`."""
        with self._changed:
            refused = [request for request in self._waiting if which(request)]
            for request in refused:
                self._waiting.remove(request)
        for request in refused:
            request.deliver(event)
            self.metrics.over(request, "abort")

    def _serve_apart(self, listen: Listen) -> None:
        """Do what may block, while `listen` takes the results; returns when the engine stops or needs a probe."""
        self._loss = None
        self._listens = True
        end = listen(self._runner.source, self._received)
        try:
            while self._apart():
                self._begin()
                self._runner.send()
        finally:
            end()
            self._listens = False
        if self._loss:
            raise self._loss
        self._runner.check()
        if self._failed_steps >= FAILED_STEPS:
            self._probe()

    def _apart(self) -> bool:
        """Wait for something to begin, cancel or send; False if results are no longer to be taken elsewhere."""
        with self._changed:
            while not self._loss:
                if not self._answers and (self._failed_steps >= FAILED_STEPS or (self._stopping and not self._waiting)):
                    return False
                if self._runner.unsent or self._cancelled or self._may_begin:
                    return True
                patience = self._runner.patience
                if patience is not None and patience <= 0:
                    break
                self._changed.wait(patience)
        return False

    @property
    def _cancelled(self) -> list[Generation]:
        """Answers on the device that are no longer wanted."""
        return [each for each in self._answers.values() if each.request.cancelled]

    @property
    def _may_begin(self) -> bool:
        """Whether a waiting request may be put on the device."""
        return bool(self._waiting) and self._failed_steps < FAILED_STEPS and self._next() is not None

    def _next(self) -> Optional[Request]:
        """The waiting request whose turn it is, if there is room for it on the device."""
        request = self._waiting.head(self._may_run)
        return request if request is not None and self._runner.fits(request) else None

    def _received(self) -> bool:
        """Give out results that are there; False if the engine is lost. On any thread."""
        with self._changed:
            try:
                self._take(self._runner.results())
                self._note()
            except Exception as error:
                self._loss = error
            if self._loss or self._stopping or self._failed_steps or self._runner.unsent or self._may_begin:
                self._changed.notify()
            return self._loss is None

    def _notify(self) -> None:
        """Wake the engine's thread, wherever it waits."""
        with self._changed:
            self._changed.notify()
            if not self._listens:
                self._runner.wake()

    def _may_run(self, request: Request) -> bool:
        """Whether a request's client may have it on the device beside its others."""
        rows = self._runner.rows
        most = self._client_batch_requests or (rows - rows // 4 if self._several_clients and rows > 3 else 0)
        own = [each for each in self._answers if each.client == request.client]
        if most and len(own) >= most:
            return False
        # One that is larger than the limit runs alone; otherwise it would never be served.
        if not self._client_batch_tokens or not own:
            return True
        return sum(each.most_tokens for each in (*own, request)) <= self._client_batch_tokens

    def _wait(self) -> bool:
        """Wait for work; False when the engine is to stop and none is left."""
        with self._changed:
            if not self._answers and not self._runner.busy:
                self._progress = time.monotonic()
                self._changed.wait_for(lambda: self._waiting or self._stopping or self._backend.lost)
                self._backend.check()
            return bool(self._answers or self._waiting or (self._runner.busy and not self._stopping))

    def _load(self) -> None:
        started = time.monotonic()
        self._on_status("loading the model")
        self._backend.load()
        # The web side's tokenizer: encoding a long prompt must not delay the tokens that this thread decodes.
        tokenizer = self._backend.second_tokenizer()
        self.encoder.use(tokenizer)
        self._decode = fast_decode(self._backend.tokenizer)
        self.dialect = prompts.dialect(tokenizer, self._prompt_format)
        self._markers = hidden(tokenizer, self.dialect.markers)
        log.info("model loaded in %.1f s", time.monotonic() - started)
        self._on_status("testing the model")
        runner = self._backend.runner()
        with self._changed:
            self._runner = runner
        self.batching = runner.batching
        if self._warm_up:
            # A GPU compiles its kernels at the first prompt, which can take minutes.
            started = time.monotonic()
            self._on_status("warming up")
            prompt = self.encoder.encode_chat([Message("user", "Hello")])
            run_single(runner, prompt, SamplingParams(max_tokens=WARM_UP_TOKENS, temperature=0))
            log.info("warmed up in %.1f s", time.monotonic() - started)

    def _step(self) -> None:
        self._begin()
        self._take(self._runner.step())
        if not self._answers:  # free the memory of ended requests now, not at the next one
            deque(self._runner.step(), maxlen=0)
            if self._failed_steps >= FAILED_STEPS:
                self._probe()
        self._note()

    def _begin(self) -> None:
        """Drop cancelled answers, and put waiting requests on the device."""
        with self._changed:
            for gone in self._cancelled:
                self._over(gone, "abort")
        if self._failed_steps < FAILED_STEPS:
            self._admit()

    def _take(self, outputs: Iterator[Output]) -> None:
        """Give out results."""
        failed = answered = False
        gaps: list[float] = []
        for output in outputs:
            failed |= output.error is not None and not isinstance(output.error, TooLargeError)
            answered |= bool(output.tokens) or output.ended
            each = self._answers.get(output.request)
            if each is None:  # it ended earlier in this step
                continue
            try:
                outcome = "abort" if output.request.cancelled else each.take(output, gaps)
            except Exception as error:
                outcome = each.fail(error)
            if outcome:
                self._over(each, outcome)
        self._failed_steps = 0 if answered else self._failed_steps + failed
        if answered:
            self._restarts = 0
            self.metrics.next_tokens(gaps)

    def _note(self) -> None:
        """Note a step's end."""
        self._cache_usage = self._runner.cache_usage
        if self._runner.stepped:
            self._progress = time.monotonic()

    def _probe(self) -> None:
        """Raise EngineError unless the model answers a short prompt: on a lost device every request fails.

        Without this, requests that fail by their own content would end the engine.
        """
        try:
            run_single(
                self._runner,
                self.encoder.encode_text("Hello"),
                SamplingParams(max_tokens=1, temperature=0, ignore_eos=True),
            )
        except Exception as error:
            raise EngineError(f"{FAILED_STEPS} steps in a row failed, and a test prompt failed too") from error
        self._failed_steps = 0

    def _admit(self) -> None:
        while True:
            with self._changed:
                request = self._next()
                if request is None:
                    return
                self._waiting.take(request)
                before = request.prompt if request.continues else ()
                decode = showing(self._decode, self._markers) if request.markers else self._decode
                text = Detokenizer(decode, request.sampling.stop, before)
                prompt = Detokenizer(decode) if request.sampling.prompt_logprobs else None
                each = Generation(request, text, self.metrics, prompt)
                self._answers[request] = each
                request.times.started = time.monotonic()
            try:
                self._runner.add(request)
            except Exception as error:
                self._failed_steps += not isinstance(error, TooLargeError)
                self._over(each, each.fail(error))

    def _over(self, each: Generation, outcome: str) -> None:
        """An answer is complete, cancelled, or failed."""
        request, times, now = each.request, each.request.times, time.monotonic()
        self._runner.drop(request)
        with self._changed:
            del self._answers[request]
        self.metrics.over(request, outcome)
        self._mean_seconds += (now - times.started - self._mean_seconds) / 8
        line = fields(
            request_id=request.id,
            key=request.key or None,
            outcome=outcome,
            prompt_tokens=len(request.prompt),
            cached_tokens=times.cached,
            answer_tokens=times.tokens,
            queue_seconds=times.started - times.submitted,
            first_token_seconds=times.first - times.submitted if times.tokens else None,
            seconds=now - times.submitted,
        )
        log.info("request over", extra=line)
