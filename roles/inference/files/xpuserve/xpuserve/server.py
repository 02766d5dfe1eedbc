"""One process: the web server on the main thread, the engine on its own."""

from __future__ import annotations

import logging
import socket

import uvicorn

from xpuserve import backends, systemd
from xpuserve.api.app import create_app
from xpuserve.engine.loop import Engine
from xpuserve.settings import Settings

DRAIN_SECONDS = 20  # how long answers under way may go on after SIGTERM; less than the unit's TimeoutStopSec

log = logging.getLogger(__name__)


def run(settings: Settings, instance: int, listener: socket.socket) -> int:
    """Serve on `listener` until SIGTERM or SIGINT; the result is the exit status, 1 if the model did not load."""
    failed = False

    def on_ready() -> None:
        host, port = listener.getsockname()[:2]
        log.info("ready: %s at http://%s:%d", settings.model.name, host, port)
        systemd.notify(f"READY=1\nSTATUS=serving {settings.model.name}")

    def on_failed() -> None:
        nonlocal failed
        failed = True
        server.should_exit = True

    engine = Engine(
        backends.create(settings, instance),
        prompt_format=settings.model.prompt_format,
        warm_up=settings.warm_up,
        on_status=lambda status: systemd.notify(f"STATUS={status}"),
        on_ready=on_ready,
        on_failed=on_failed,
    )
    app = create_app(
        engine,
        model=settings.model.name,
        context_length=settings.model.context_length,
        max_tokens_default=settings.max_tokens_default,
    )
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=DRAIN_SECONDS)
    )
    engine.start()
    server.run(sockets=[listener])
    systemd.notify("STOPPING=1")
    if engine.ready:
        engine.stop(timeout=5)
    return 1 if failed else 0
