"""The service's process: the web server on the main thread, and a thread for the engine, whose process it starts."""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Optional

import uvicorn

from xpuserve import backends, sampling, systemd, text_models
from xpuserve.agent import Agent
from xpuserve.api import origin
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.api.mailbox import Mailbox
from xpuserve.door import ACCEPTED, QUEUED, Door, most_connections, protocol
from xpuserve.engine.backend import Backend
from xpuserve.engine.loop import Engine
from xpuserve.engine.request import Failed
from xpuserve.keys import Keys, KeysError
from xpuserve.metrics import Metrics
from xpuserve.settings import Settings
from xpuserve.tls import Certificate, TLSError

# Steps after SIGTERM, when settings.stop_timeout is over for answers in progress; together they must fit the extra
# time of the unit's TimeoutStopSec.
CLOSE_SECONDS = 2  # for an error to reach the remaining clients
STOP_SECONDS = 3  # for the engine to unload its library

# Drains an instance while it exists: a gateway sends it no more requests. Root writes it; it outlives the process.
DRAIN_FILE = "/etc/xpuserve/drain-{}"
# Seconds between updates of the answers' date.
TICK_SECONDS = 1.0
# Seconds between checks of the certificate's files.
CERTIFICATE_SECONDS = 10

log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """uvicorn, which would otherwise cut answers' connections at the end of the time to stop.

    It notifies systemd's watchdog from the web server's loop while the engine makes progress: if either of
    the two hangs, systemd ends the process and restarts it.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        engine: Engine,
        settings: Settings,
        instance: int,
        certificate: Optional[Certificate] = None,
    ) -> None:
        super().__init__(config)
        self._engine = engine
        self._certificate = certificate
        self._agent = Agent(engine, Path(DRAIN_FILE.format(instance)), lambda: not self.should_exit)
        self._agent_address = (settings.host, settings.agent_port + instance) if settings.agent_port else None
        self._stall_timeout = settings.stall_timeout
        self._stop_timeout = settings.stop_timeout
        self._wake: Callable[[], object] = lambda: None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        self._engine.attend(Mailbox.of(asyncio.get_running_loop()).listen)
        await super().startup(sockets)
        for listener in sockets or ():
            listener.listen(QUEUED)  # uvicorn's backlog is also the number of connections accepted at once
        if self._agent_address:
            try:
                self._agent_server = await self._agent.start(*self._agent_address)
            except OSError as error:
                log.error("cannot report the load to gateways on port %d: %s", self._agent_address[1], error.strerror)
        interval = systemd.watchdog_seconds() / 2
        if interval:
            self._watch = asyncio.create_task(self._keep_watch(interval))
        if self._certificate:
            self._renewal = asyncio.create_task(self._keep_certificate(self._certificate))

    async def main_loop(self) -> None:
        """See uvicorn.Server, which wakes up ten times a second to see whether it has to end."""
        loop, leaves = asyncio.get_running_loop(), asyncio.Event()
        self._wake = partial(loop.call_soon_threadsafe, leaves.set)
        while not await self.on_tick(0):
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(leaves.wait(), TICK_SECONDS)

    def handle_exit(self, sig: int, frame: Optional[FrameType]) -> None:
        """See uvicorn.Server."""
        super().handle_exit(sig, frame)
        self.leave()

    def leave(self) -> None:
        """End; on any thread."""
        self.should_exit = True
        with suppress(RuntimeError):  # the loop has ended
            self._wake()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn.Server."""
        systemd.notify("STOPPING=1")
        stopped = Failed("the server is shutting down", code="shutting_down")
        self._engine.drain(stopped)
        asyncio.get_running_loop().call_later(self._stop_timeout, self._engine.abort, stopped)
        await super().shutdown(sockets)

    async def _keep_certificate(self, certificate: Certificate) -> None:
        while True:
            await asyncio.sleep(CERTIFICATE_SECONDS)
            _renew(certificate)

    async def _keep_watch(self, interval: float) -> None:
        hangs = False
        while True:
            before, hangs = hangs, self._engine.stalled_seconds > self._stall_timeout
            if not hangs:
                systemd.notify("WATCHDOG=1", wait=False)
            elif not before:
                log.error("the engine has work, but no step ended for %g s", self._stall_timeout)
            await asyncio.sleep(interval)


def run(settings: Settings, instance: int, listener: socket.socket, command: Sequence[str]) -> int:
    """Serve on `listener` until SIGTERM or SIGINT; returns the exit status, 1 if the engine failed.

    `command` starts the process of the engine; it gets one more argument, the descriptor of its channel.

    SIGHUP reads the API keys and the certificate again. Raises KeysError and TLSError.
    """
    failed = False
    faulthandler.enable()  # a process that the watchdog ends logs its stack
    keys = Keys(Path(settings.api_keys_file)) if settings.api_keys_file else None
    certificate: Optional[Certificate] = None
    if settings.tls_certificate:
        certificate = Certificate(Path(settings.tls_certificate), Path(settings.tls_key))

    def on_ready() -> None:
        host, port = listener.getsockname()[:2]
        log.info("ready: %s at %s://%s:%d", settings.model.name, "https" if certificate else "http", host, port)
        systemd.notify(f"READY=1\nSTATUS=serving {settings.model.name}")

    def on_failed() -> None:
        nonlocal failed
        failed = True
        server.leave()

    metrics = Metrics(settings.model.name, settings.model.context_length)
    backend: Backend = (
        backends.remote(settings, instance, command) if settings.engine_process else backends.create(settings, instance)
    )
    engine = Engine(
        backend,
        prompt_format=settings.model.prompt_format,
        warm_up=settings.warm_up,
        queue_requests=settings.queue_requests,
        queue_tokens=settings.queue_tokens,
        client_batch_requests=settings.client_batch_requests,
        client_batch_tokens=settings.client_batch_tokens,
        several_clients=keys is not None and len(keys.names) > 1,
        metrics=metrics,
        on_status=lambda status: systemd.notify(f"STATUS={status}"),
        on_ready=on_ready,
        on_failed=on_failed,
    )
    model = settings.model
    limits = Limits(
        model.context_length,
        settings.max_tokens_default,
        sampling=sampling.defaults(settings.sampling_defaults, Path(model.path)),
        by_client=settings.prefix_cache_by_client,
        priorities=settings.priorities,
        request_timeout=settings.request_timeout,
    )
    options: dict[str, Any] = {
        "stall_timeout": settings.stall_timeout,
        "hosts": origin.hosts(listener.getsockname()[0], settings.hosts),
        "origins": settings.cors_origins,
        "metrics_key": settings.metrics_key,
        "texts": text_models.of(settings),
    }
    app = create_app(engine, model.name, limits, keys, **options)
    door = Door(most_connections(settings.connections), settings.client_connections)
    close = settings.stop_timeout + CLOSE_SECONDS
    config = uvicorn.Config(
        app,
        http=protocol(door, certificate.context if certificate else None),
        backlog=ACCEPTED,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # limits count by address; uvicorn would take it from a local client's header
        lifespan="off",
        timeout_graceful_shutdown=close,
    )
    server = Server(config, engine, settings, instance, certificate)
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn sends itself the signal again after it has stopped; this handler ignores that.
        signal.signal(number, server.handle_exit)
    signal.signal(signal.SIGHUP, lambda *_ignored: _reload(keys, certificate))
    engine.start()
    # New connections wait in the kernel meanwhile, and systemd's watchdog has not started.
    backend.await_tokenizer()
    server.run(sockets=[listener])
    if engine.ready:
        engine.stop(STOP_SECONDS)
    status = 1 if failed else 0
    if engine.alive:
        # Its thread is inside the engine's library, which Python's exit would tear down.
        logging.shutdown()
        os._exit(status)
    return status


def _reload(keys: Optional[Keys], certificate: Optional[Certificate]) -> None:
    if certificate:
        _renew(certificate)
    try:
        if keys:
            log.info("%d API keys are accepted now", keys.reload())
    except KeysError as error:
        log.error("the former API keys stay in use: %s", error)


def _renew(certificate: Certificate) -> None:
    try:
        if certificate.reload():
            log.info("new connections get the new certificate")
    except TLSError as error:
        log.error("the former certificate stays in use: %s", error)
