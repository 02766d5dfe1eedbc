"""The chat page: files of this package, for everyone who reaches the service. Its API requests need a key."""

from __future__ import annotations

from functools import partial
from importlib.resources import files

from fastapi import FastAPI
from fastapi.responses import Response

_KINDS = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY = (
    *("default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'", "connect-src 'self'"),
    *("base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"),
    # Text can never become an element's HTML, whatever a later change of the page does.
    *("require-trusted-types-for 'script'", "trusted-types 'none'"),
)
_HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "Cache-Control": "no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def _read() -> dict[str, tuple[str, bytes]]:
    """Media type and content by path. It works inside the nodes' zip file, too."""
    found = {}
    for file in (files("xpuserve.api") / "static").iterdir():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind:
            path = "/" if file.name == "index.html" else f"/static/{file.name}"
            found[path] = kind, file.read_bytes()
    return found


_FILES = _read()
PATHS = frozenset(_FILES)


def add(app: FastAPI) -> None:
    """Serve the page; it is part neither of the API nor of its document."""
    for path in PATHS:
        app.add_api_route(path, partial(_serve, path), methods=["GET", "HEAD"], include_in_schema=False, name=path)


async def _serve(path: str) -> Response:
    kind, content = _FILES[path]
    return Response(content, media_type=kind, headers=_HEADERS)
