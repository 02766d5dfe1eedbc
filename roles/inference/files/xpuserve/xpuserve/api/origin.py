"""Where a request may come from: no page of another site may ask what a person's browser can reach.

A browser sends JSON to another site only if that allows it, but a form, or a text, without asking. And a name of the
site's own may lead to a loopback address; then the Host header has that name.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Optional

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from xpuserve.api.errors import CLIENT_ERROR, NO_JSON_OBJECT, answer, error_body


def hosts(listener: str, more: Collection[str] = ()) -> Optional[frozenset[str]]:
    """The names that a Host header may have; None for all, where others than this machine may connect anyway."""
    if not ipaddress.ip_address(listener).is_loopback:
        return None
    return frozenset({listener, "localhost", "127.0.0.1", "::1", *(name.lower() for name in more)})


class KnownHost:
    """Refuses what asks for a service of another name."""

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
    """Refuses a body of another type, or of none: a page of any site may send that without asking."""

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
