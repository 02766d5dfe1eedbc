"""A model hub on this machine: the part of the Hugging Face API that the collection uses, with its refusals."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "a" * 40


class Hub:
    """Its files, who may read them, and what was asked."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.token = ""
        self.altered: dict[str, bytes] = {}
        self.cut_after = 0
        self.requests: list[tuple[str, str, str]] = []
        self.tokens: list[str] = []
        self.url = ""

    def siblings(self) -> list[dict[str, object]]:
        """The files as the API lists them: large ones by sha256, small ones by git's digest."""
        listed: list[dict[str, object]] = []
        for name, data in self.files.items():
            entry: dict[str, object] = {"rfilename": name, "size": len(data)}
            if name.endswith((".safetensors", ".gguf", ".bin")):
                entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
            else:
                git = hashlib.sha1(f"blob {len(data)}\0".encode() + data)  # noqa: S324 - git's own digest
                entry["blobId"] = git.hexdigest()
            listed.append(entry)
        return listed


@contextmanager
def serve() -> Iterator[Hub]:
    """Run a hub for the length of a test."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            """Send a whole answer."""
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            """Answer as the hub does."""
            hub.requests.append((self.command, self.path, self.headers.get("Range", "")))
            hub.tokens.append(self.headers.get("Authorization", ""))
            if self.path.startswith("/api/models/owner/model/revision/"):
                if not self.path.split("?")[0].endswith(("/main", COMMIT)):
                    self.answer(404, b"")
                    return
                self.answer(200, json.dumps({"sha": COMMIT, "siblings": hub.siblings()}).encode())
                return
            name = self.path.rpartition("/")[2]
            if name not in hub.files:
                self.answer(404, b"")
                return
            if hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.answer(401, b"")
                return
            data = hub.altered.get(name, hub.files[name])
            begin = self.headers.get("Range", "")
            if begin:
                start = int(begin[len("bytes=") : -1])
                self.answer(206, data[start:])
            elif hub.cut_after and self.command == "GET" and len(data) > hub.cut_after:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: hub.cut_after])
                self.close_connection = True
            else:
                self.answer(200, data)

        do_HEAD = do_GET

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
