"""Authentication by keys."""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from xpuserve.api import page
from xpuserve.api.errors import ANTHROPIC, CLIENT_ERROR, answer, error_body
from xpuserve.keys import Keys

# Probes, scrapers and a browser that opens the page have no key, and these answers contain nothing private.
OPEN_PATHS = frozenset({"/health", "/ready", "/metrics"}) | page.PATHS


class RequireKey:
    """Refuses requests without a key, before reading their body."""

    def __init__(self, app: ASGIApp, keys: Keys, *, metrics_open: bool = True) -> None:
        """Without `metrics_open`, metrics need a key too."""
        self._app = app
        self._keys = keys
        self._open = OPEN_PATHS if metrics_open else OPEN_PATHS - {"/metrics"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http" and scope["path"] not in self._open:
            headers = Headers(scope=scope)
            scheme, _between, key = headers.get("authorization", "").partition(" ")
            if not key and scope["path"].startswith(ANTHROPIC):
                scheme, key = "bearer", headers.get("x-api-key", "")
            whose = self._keys.accept(key.strip()) if scheme.lower() == "bearer" else None
            if whose:
                scope.setdefault("state", {})["key"] = whose
            else:
                message = "this API key is unknown" if key else "an API key is required: Authorization: Bearer KEY"
                body = error_body(message, CLIENT_ERROR, code="invalid_api_key")
                await answer(scope["path"], 401, body, {"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self._app(scope, receive, send)
