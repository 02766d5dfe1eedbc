"""Observation of HTTP requests: id, status, time."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from xpuserve.api.auth import OPEN_PATHS
from xpuserve.api.errors import SERVER_ERROR, answer, error_body
from xpuserve.logs import fields
from xpuserve.metrics import Metrics

CLIENT_LEFT = 499
# The service's log uses a gateway's id of a request; any other content of that header is ignored.
_REQUEST_ID = re.compile(r"[A-Za-z0-9-]{8,64}")

log = logging.getLogger(__name__)


class Observe:
    """Gives every request an id if it has none, counts it, and logs a line about it.

    Metrics have routes, not paths, and only common methods: clients may send any, and each would be kept.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = request_id
        started, status = time.monotonic(), 0

        async def observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, observed)
        except Exception:
            log.exception("a bug", extra=fields(request_id=request_id))
            if status:
                raise
            body = error_body("internal error", SERVER_ERROR, code="internal_error")
            await answer(scope["path"], 500, body)(scope, receive, observed)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "OPTIONS") else "other"
            key = scope["state"].get("key")
            self._metrics.http(route, method, status or CLIENT_LEFT, key.name if key else "")
            if route not in OPEN_PATHS:
                line = {"request_id": request_id, "method": method, "route": route, "status": status or CLIENT_LEFT}
                line |= {
                    "client": scope["client"][0] if scope.get("client") else None,
                    "key": key.name if key else None,
                }
                log.info("answered", extra=fields(**line, seconds=time.monotonic() - started))
