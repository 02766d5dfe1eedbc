"""The web server for all downloads of test hosts; it serves only folders of the cache."""

from __future__ import annotations

import html
import http.server
import json
import shutil
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Optional

#: URL prefix -> folders laid over each other there.
Mounts = dict[str, list[str]]


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET and HEAD from the mounts; folders get an index page for pip --find-links."""

    protocol_version = "HTTP/1.1"
    mounts: Callable[[], Mounts]

    def do_GET(self) -> None:
        """Send a file or a folder's index."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send the headers of a file or of a folder's index."""
        self._answer(body=False)

    def log_message(self, *arguments: object) -> None:
        """Log nothing: the rig's log is for messages that people need."""

    def _answer(self, *, body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        found = self._find(path)
        files = [entry for entry in found if entry.is_file()]
        if files:
            self._send_file(files[0], body=body)
        elif found or path == "/":
            self._send_index(path, found, body=body)
        else:
            text = b"not on this mirror\n"
            self._head(404, len(text), "text/plain")
            if body:
                self.wfile.write(text)

    def _find(self, path: str) -> list[Path]:
        """Return the content of a path: one file, or the folders merged there."""
        parts = [part for part in path.split("/") if part]
        if ".." in parts:
            return []
        for prefix, folders in type(self).mounts().items():
            own = [part for part in prefix.split("/") if part]
            if parts[: len(own)] == own:
                rest = parts[len(own) :]
                return [entry for entry in (Path(folder, *rest) for folder in folders) if entry.exists()]
        return []

    def _send_file(self, path: Path, *, body: bool) -> None:
        with path.open("rb") as source:
            self._head(200, path.stat().st_size, "application/octet-stream")
            if body:
                shutil.copyfileobj(source, self.wfile, 1 << 20)

    def _send_index(self, path: str, folders: list[Path], *, body: bool) -> None:
        if path == "/":
            names = sorted(f"{prefix.strip('/')}/" for prefix in type(self).mounts())
        else:
            entries = {f"{entry.name}/" if entry.is_dir() else entry.name for top in folders for entry in top.iterdir()}
            names = sorted(entries)
        base = path if path.endswith("/") else f"{path}/"
        links = "".join(f'<a href="{urllib.parse.quote(base + name)}">{html.escape(name)}</a><br>\n' for name in names)
        text = f"<!DOCTYPE html><title>xpu.fleet test mirror</title>\n{links}".encode()
        self._head(200, len(text), "text/html; charset=utf-8")
        if body:
            self.wfile.write(text)

    def _head(self, status: int, length: int, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(length))
        self.end_headers()


class MountFile:
    """Mounts from a JSON file, read again whenever it changes."""

    def __init__(self, path: Path) -> None:
        """Watch ``path``."""
        self.path = path
        self._stamp: Optional[int] = None
        self._mounts: Mounts = {}

    def __call__(self) -> Mounts:
        """Return the mounts, longest prefix first."""
        stamp = self.path.stat().st_mtime_ns
        if stamp != self._stamp:
            loaded: Mounts = json.loads(self.path.read_text())
            self._mounts = dict(sorted(loaded.items(), key=lambda item: -len(item[0])))
            self._stamp = stamp
        return self._mounts


def serve(address: str, port: int, mounts: MountFile) -> http.server.ThreadingHTTPServer:
    """Return a server bound to the address; the caller runs ``serve_forever`` on it."""

    class Bound(Handler):
        pass

    Bound.mounts = mounts
    server = http.server.ThreadingHTTPServer((address, port), Bound)
    server.daemon_threads = True
    return server
