"""The process of an engine: it owns the device, steps its requests, and does nothing else.

It reads the service's messages between two steps, and reports each step's results. It ends with the service.
"""

from __future__ import annotations

import ctypes
import faulthandler
import logging
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Optional

from xpuserve.engine import remote_texts
from xpuserve.engine.backend import Backend, EngineError
from xpuserve.engine.channel import Channel, ChannelError
from xpuserve.engine.messages import Add, Drop, Load, Ready, Result, Status, Step, ToService, decode, encode
from xpuserve.engine.request import Request
from xpuserve.engine.runner import OutOfMemoryError, Runner, TooLargeError
from xpuserve.logs import fields
from xpuserve.settings import Settings

# Seconds for texts that are being computed when the service leaves.
LEAVE_SECONDS = 2.0
_PR_SET_PDEATHSIG = 1  # prctl(2)

log = logging.getLogger(__name__)


def run(channel: Channel, create: Callable[[Settings, int], Backend], texts: Optional[Channel] = None) -> int:
    """Load a model, as the first message says, and serve until the channel is closed; returns the exit status.

    The backend's embedding and rerank models serve channel `texts`.
    """
    _prepare()
    messages = channel.receive()
    if not messages:
        return 0
    first, *rest = map(decode, messages)
    if not isinstance(first, Load) or rest:
        raise EngineError(f"the first message is {type(first).__name__}, not Load")
    doing = "the model could not be loaded"
    try:
        backend = create(Settings.model_validate(first.settings), first.instance)
        runner = _loaded(channel, backend)
        doing = "the engine ended"
        answering = remote_texts.serve(texts, backend.texts) if texts and backend.texts else None
        Worker(runner, channel).run()
        if answering:
            answering.join(LEAVE_SECONDS)  # or it would return into a library that Python's exit takes down
    except ChannelError:  # the service is gone
        return 0
    except Exception:
        log.exception(doing)
        return 1
    return 0


def _prepare() -> None:
    """Die with the service, and ignore its signals: the service tells this process when to end."""
    faulthandler.enable()  # SIGABRT ends a process that hangs, after it has logged its stack
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)


def _loaded(channel: Channel, backend: Backend) -> Runner:
    def say(message: ToService) -> None:
        channel.send(encode(message))

    started = time.monotonic()
    say(Status("loading the model"))
    backend.load()
    log.info("model loaded in %.1f s", time.monotonic() - started)
    say(Status("testing the model"))
    runner = backend.runner()
    say(Ready(runner.batching, runner.rows, sorted(backend.offers)))
    return runner


class Worker:
    """Steps requests through a runner, in the order in which they came."""

    def __init__(self, runner: Runner, channel: Channel) -> None:
        self._runner = runner
        self._channel = channel
        self._waiting: deque[tuple[int, Request]] = deque()
        self._ids: dict[Request, int] = {}  # of the requests on the device
        self._requests: dict[int, Request] = {}
        self._counts: dict[Request, int] = {}  # their numbers of tokens
        self._began: list[int] = []
        self._usage = 0.0
        self._heard = self._told = 0  # messages read, and those of them that the service knows to be read

    def run(self) -> None:
        """Serve until the channel is closed."""
        while self._take():
            failed = list(self._admit())
            if failed or self._began:
                self._send(failed)
            self._send([result for output in self._runner.step() if (result := self._result(output))])
            if not self._ids:  # free the memory of ended requests now, not at the next one
                deque(self._runner.step(), maxlen=0)
                self._send([])

    def _take(self) -> bool:
        """Process the service's messages, waiting if there is nothing else to do; False when the service is gone."""
        messages = self._channel.receive(0 if self._ids or self._waiting else None)
        if messages is None:
            return False
        for message in map(decode, messages):
            self._heard += 1
            if isinstance(message, Add):
                request = Request(
                    str(message.id),
                    list(message.prompt),
                    message.sampling,
                    lambda event: None,
                    client=message.client,
                    salt=message.salt,
                )
                self._waiting.append((message.id, request))
            elif isinstance(message, Drop):
                self._waiting = deque(each for each in self._waiting if each[0] != message.id)
                if message.id in self._requests:
                    self._over(self._requests[message.id])
        return True

    def _admit(self) -> Iterator[Result]:
        """Put requests on the device as long as there is room; yields those that failed."""
        while self._waiting and self._runner.fits(self._waiting[0][1]):
            number, request = self._waiting.popleft()
            self._began.append(number)
            self._ids[request], self._requests[number], self._counts[request] = number, request, 0
            try:
                self._runner.add(request)
            except Exception as error:
                if not isinstance(error, TooLargeError):
                    log.exception("a request was not taken", extra=fields(request=number))
                self._over(request)
                yield Result(number, error=error)

    def _result(self, output: Any) -> Optional[Result]:
        """A step's result for a request that is still wanted; a finished one leaves the device."""
        request = output.request
        number = self._ids.get(request)
        if number is None:
            return None
        cached = None if self._counts[request] else request.times.cached
        self._counts[request] += len(output.tokens)
        if output.error and not isinstance(output.error, OutOfMemoryError):
            log.error("a request failed", exc_info=output.error, extra=fields(request=number))
        if output.error or output.ended or self._counts[request] >= request.sampling.max_tokens:
            self._over(request)
        elif not output.tokens and not output.prompt:
            return None
        return Result(number, output.tokens, output.ended, cached, output.error, output.prompt)

    def _over(self, request: Request) -> None:
        self._runner.drop(request)
        del self._requests[self._ids.pop(request)], self._counts[request]

    def _send(self, results: Iterable[Result]) -> None:
        """Send a step's results; also its end, as long as a client waits for it."""
        results, usage = list(results), self._runner.cache_usage
        if results or self._began or self._ids or usage != self._usage or self._heard != self._told:
            self._channel.send(encode(Step.of(results, self._began, usage, self._heard)))
            self._began, self._usage, self._told = [], usage, self._heard
