"""The origin of a request: pages of other sites must not use a person's browser to reach the service.

A browser asks for permission before it sends JSON to another site, but not for a form or plain text. And a site's
name may resolve to a loopback address; then the Host header has that name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Optional

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from xpuserve.api.errors import CLIENT_ERROR, NO_JSON_OBJECT, answer, error_body


def hosts(listener: str, more: Collection[str] = ()) -> Optional[frozenset[str]]:
    """The names allowed in a Host header; None for all, if machines besides this one may connect anyway."""
    if not ipaddress.ip_address(listener).is_loopback:
        return None
    return frozenset({listener, "localhost", "127.0.0.1", "::1", *(name.lower() for name in more)})


class KnownHost:
    """Refuses requests with another Host name."""

    def __init__(self, app: ASGIApp, known: Collection[str]) -> None:
        self._app = app
        self._known = known

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and _name(Headers(scope=scope).get("host", "")) not in self._known:
            message = "unknown host name: use localhost, or add the name to inference_hosts"
            body = error_body(message, CLIENT_ERROR, code="unknown_host")
            await answer(scope["path"], 421, body)(scope, receive, send)
            return
        await self._app(scope, receive, send)


class OnlyJSON:
    """Refuses a body of another type, or of none: a page of any site may send that without permission."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["method"] in ("POST", "PUT", "PATCH"):
            kind = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json" and not kind.endswith("+json"):
                body = error_body(NO_JSON_OBJECT, CLIENT_ERROR)
                await answer(scope["path"], 400, body)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    name, colon, port = host.strip().rpartition(":")
    if not colon or not port.isdigit():
        name = host.strip()
    return name.strip("[]").lower().rstrip(".")
