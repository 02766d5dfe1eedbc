"""An engine in a separate process, as the service sees it: a backend like the others, whose runner is there.

The service keeps the queue, the tokenizer and the text; the process owns the device, and its library's
threads, memory and failures. Its steps hold no lock of the service, and its end is an error here.
"""

from __future__ import annotations

import itertools
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Optional

from xpuserve.engine.backend import Backend, EngineLostError, Tokenizer
from xpuserve.engine.channel import Channel, ChannelError, readable
from xpuserve.engine.messages import Add, Drop, Load, Ready, Status, Step, ToEngine, decode, encode
from xpuserve.engine.remote_texts import Count, RemoteTexts
from xpuserve.engine.request import Request, Token
from xpuserve.engine.runner import Output, Runner
from xpuserve.settings import Settings

# Requests that wait in the process: enough that one follows at once when another ends, and so few that the queue's
# order still counts.
AHEAD = 4
# Seconds for a process to log its stack, and to unload its library.
DUMP_SECONDS, LEAVE_SECONDS = 5.0, 3.0

log = logging.getLogger(__name__)


class RemoteBackend(Backend):
    """Starts and ends the process."""

    restartable = True

    def __init__(
        self,
        command: Sequence[str],
        settings: Settings,
        instance: int,
        *,
        tokenizer: Callable[[], Tokenizer],
        second_tokenizer: Optional[Callable[[], Tokenizer]] = None,
        counts: Optional[Callable[[], Count]] = None,
    ) -> None:
        """`command` gets the descriptor of its channel as last argument, and before it that of a channel for texts, if
        `counts` loads tokenizers of embedding and rerank models.

        `tokenizer` loads the model's here; without `second_tokenizer`, two threads may share it.
        """
        self._command = command
        self._settings = settings
        self._instance = instance
        self._load_tokenizer = tokenizer
        self._load_second = second_tokenizer
        self._second: Optional[Tokenizer] = None
        self._load_counts = counts
        self._remote_texts = RemoteTexts(settings.stall_timeout)
        self.texts = self._remote_texts if counts else None
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._loaded = False
        self.on_status: Callable[[str], None] = lambda text: None
        self._tokenizes = threading.Event()  # or has failed

    def load(self) -> None:
        """See Backend. Raises EngineLostError."""
        try:
            self._start()
            if not self._loaded:  # in parallel with the process, which loads the model
                self.tokenizer = self._load_tokenizer()
                self._second = self._load_second() if self._load_second else self.tokenizer
                if self._load_counts:
                    self._remote_texts.counts = self._load_counts()
                self._loaded = True
        finally:
            self._tokenizes.set()
        self._ready = self._until_ready()

    def _start(self) -> None:
        self.close()
        pairs = [socket.socketpair() for _each in range(2 if self.texts else 1)]
        here, *texts = [own for own, _its in pairs]
        its = [end.fileno() for _own, end in pairs]
        # The process sends systemd nothing: systemd listens only to the service.
        environment = {name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"}
        try:
            self._process = subprocess.Popen(
                [*self._command, *map(str, reversed(its))], pass_fds=its, env=environment, stdin=subprocess.DEVNULL
            )
        finally:
            for _own, end in pairs:
                end.close()
        self._channel = Channel(here, self._settings.stall_timeout)
        for end in texts:
            self._remote_texts.begin(end, self._process)
        self._send(Load(self._settings.model_dump(), self._instance))

    def _until_ready(self) -> Ready:
        deadline = time.monotonic() + self._settings.start_timeout
        while True:
            messages = self._receive(max(0, deadline - time.monotonic()))
            if not messages:
                self.hangs(f"the model was not loaded in {self._settings.start_timeout} s")
            for message in messages:
                if isinstance(message, Status):
                    self.on_status(message.text)
                elif isinstance(message, Ready):
                    self.offers = frozenset(message.offers)
                    return message

    def await_tokenizer(self) -> None:
        """See Backend. Some libraries block all other threads while it loads."""
        self._tokenizes.wait()

    def second_tokenizer(self) -> Tokenizer:
        """See Backend."""
        assert self._second  # noqa: S101 - it is loaded
        return self._second

    def runner(self) -> Runner:
        """See Backend."""
        return RemoteRunner(self, self._ready)

    def when_lost(self, call: Callable[[], None]) -> None:
        """Register a callback, in its own thread, for the end of the present process."""
        process = self._process
        if process:
            threading.Thread(target=_call_at_end, args=(process, call), name="watch", daemon=True).start()

    @property
    def process(self) -> int:
        """See Backend."""
        process = self._process
        return process.pid if process else 0

    @property
    def lost(self) -> bool:
        """Whether there is no process."""
        return self._process is None or self._process.poll() is not None

    def check(self) -> None:
        """See Backend."""
        if self.lost:
            raise EngineLostError(self._ended())

    def close(self) -> None:
        """End the process; it unloads its library by itself if it can."""
        process, self._process = self._process, None
        if process:
            self._channel.close()
            with suppress(subprocess.TimeoutExpired):
                process.wait(LEAVE_SECONDS)
            process.kill()
            process.wait()

    def hangs(self, reason: str) -> None:
        """End a process that makes no progress, which logs its stack first. Raises EngineLostError."""
        log.error("%s: the engine's process is stopped", reason)
        process, self._process = self._process, None
        if process:
            for number in (signal.SIGABRT, signal.SIGCONT):  # a stopped process dumps nothing before it continues
                process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(DUMP_SECONDS)
            process.kill()
            process.wait()
            self._channel.close()
        raise EngineLostError(reason)

    @property
    def descriptor(self) -> int:
        """The channel's; -1 without a process."""
        return -1 if self._process is None else self._channel.fileno()

    def received(self) -> list[Step]:
        """The results of steps that are there. Raises EngineLostError."""
        if self._process is None:
            raise EngineLostError("the engine's process ended")
        return [message for message in self._decoded(self._channel.present) if isinstance(message, Step)]

    def tell(self, message: ToEngine) -> None:
        """Send a message; the next step reports if the process is gone."""
        with suppress(EngineLostError):
            self._send(message)

    def _send(self, message: ToEngine) -> None:
        try:
            self._channel.send(encode(message))
        except ChannelError as error:
            raise EngineLostError(str(error)) from None

    def _receive(self, timeout: float) -> list[Any]:
        return self._decoded(partial(self._channel.receive, timeout))

    def _decoded(self, receive: Callable[[], Optional[list[list[Any]]]]) -> list[Any]:
        try:
            messages = receive()
        except ChannelError as error:
            raise EngineLostError(str(error)) from None
        if messages is None:
            raise EngineLostError(self._ended())
        return [decode(message) for message in messages]

    def _ended(self) -> str:
        process, self._process = self._process, None
        if process is None:
            return "the engine's process ended"
        self._channel.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(LEAVE_SECONDS)
        process.kill()
        status = process.wait()
        how = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"ended with exit status {status}"
        return f"the engine's process {how}"


def _call_at_end(process: subprocess.Popen[bytes], call: Callable[[], None]) -> None:
    process.wait()
    call()


class RemoteRunner(Runner):
    """The requests in the process. A step waits for their results."""

    def __init__(self, backend: RemoteBackend, ready: Ready) -> None:
        self._backend = backend
        self._stall_timeout = backend._settings.stall_timeout
        self.batching, self.rows = ready.batching, ready.rows
        self._numbers = itertools.count()
        self._ids: dict[Request, int] = {}
        self._requests: dict[int, Request] = {}
        self._left: dict[int, int] = {}  # tokens that may still come
        self._waiting: set[int] = set()  # those that wait for room
        self._usage = 0.0
        self._telling = threading.Lock()
        self._unsent: deque[ToEngine] = deque()
        self._told = self._heard = 0  # messages to the process, and those that it has read
        self._stepped = True
        self._progress = time.monotonic()
        self._wakes, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def close(self) -> None:
        """See Runner."""
        for descriptor in (self._wakes, self._wake):
            os.close(descriptor)
        self._wake = -1

    @property
    def cache_usage(self) -> float:
        """See Runner. Of an idle process 0: it frees memory after the step that is read last here."""
        return self._usage if self._ids else 0.0

    @property
    def stepped(self) -> bool:
        """See Runner."""
        return self._stepped

    @property
    def busy(self) -> bool:
        """See Runner. It has a request, or has not yet read a Drop: it may hang over that."""
        return bool(self._ids) or self._heard < self._told

    def fits(self, request: Request) -> bool:
        """See Runner."""
        return len(self._waiting) < AHEAD

    def add(self, request: Request) -> None:
        """See Runner."""
        number = next(self._numbers)
        if not self.busy:
            self._progress = time.monotonic()
        self._ids[request], self._requests[number] = number, request
        self._left[number] = request.sampling.max_tokens
        self._waiting.add(number)
        self._tell(Add(number, request.prompt, request.sampling, request.salt, request.client))

    def drop(self, request: Request) -> None:
        """See Runner."""
        number = self._ids.pop(request, None)
        if number is not None:
            del self._requests[number], self._left[number]
            self._waiting.discard(number)
            self._tell(Drop(number))

    def _tell(self, message: ToEngine) -> None:
        with self._telling:
            self._told += 1
            self._unsent.append(message)

    @property
    def unsent(self) -> bool:
        """See Runner."""
        return bool(self._unsent)

    def send(self) -> None:
        """See Runner."""
        while self._unsent:
            self._backend.tell(self._unsent.popleft())

    @property
    def ahead(self) -> int:
        """See Runner."""
        return len(self._waiting)

    def begun(self, request: Request) -> bool:
        """See Runner."""
        return self._ids.get(request) not in self._waiting

    def wake(self) -> None:
        """See Runner."""
        with suppress(OSError):  # it wakes anyway, or is closed
            os.write(self._wake, b"\0")

    @property
    def source(self) -> int:
        """See Runner."""
        return self._backend.descriptor

    @property
    def patience(self) -> Optional[float]:
        """See Runner."""
        return self._progress + self._stall_timeout - time.monotonic() if self.busy else None

    def check(self) -> None:
        """See Runner."""
        if (self.patience or 1) <= 0:
            self._backend.hangs(f"the engine has work, but no step ended for {self._stall_timeout:g} s")

    def step(self) -> Iterator[Output]:
        """See Runner. Raises EngineLostError."""
        self._stepped = True
        left = self.patience
        if left is None:
            return
        self.check()
        self.send()
        source = self.source
        ready = readable([source, self._wakes], left) if source >= 0 else [source]
        if source in ready:
            yield from self.results()
        else:
            self._stepped = False
            with suppress(BlockingIOError):
                os.read(self._wakes, 4096)

    def results(self) -> Iterator[Output]:
        """See Runner. Raises EngineLostError."""
        steps = self._backend.received()
        self._stepped = bool(steps)
        now = time.monotonic()
        if steps:
            self._progress = now
        for step in steps:
            self._usage, self._heard = step.usage, step.heard
            for number in step.began:
                self._waiting.discard(number)
                if number in self._requests:
                    self._requests[number].times.started = now
            pairs = iter(step.tokens)
            for number, token in zip(pairs, pairs):
                request = self._came(number, 1)
                if request:
                    yield Output(request, (Token(token),))
            for number, tokens, ended, cached, error, prompt in step.results:
                request = self._came(number, len(tokens), over=ended or error is not None)
                if request:
                    if cached is not None:
                        request.times.cached = cached
                    yield Output(request, tokens, ended, error, prompt)

    def _came(self, number: int, tokens: int, *, over: bool = False) -> Optional[Request]:
        """The request of a result; None if it was dropped meanwhile. After its last, the process has dropped it too."""
        request = self._requests.get(number)
        if request is not None:
            self._left[number] -= tokens
            if over or self._left[number] <= 0:
                del self._ids[request], self._requests[number], self._left[number]
        return request
