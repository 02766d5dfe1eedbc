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
        #: Answers to the API's next requests, and to every request for a file: status and headers.
        self.api_refusals: list[tuple[int, dict[str, str]]] = []
        self.file_refusals: list[tuple[int, dict[str, str]]] = []
        #: Where requests for a file's bytes are sent on to, {name} in it stands for the file.
        self.elsewhere = ""
        #: Whether the API tells sizes and digests, whether the redirect does, and the commit that it answers with.
        self.metadata = True
        self.linked = False
        self.commit = COMMIT
        #: The name that the repository has now.
        self.name = "owner/model"
        self.requests: list[tuple[str, str, str]] = []
        self.tokens: list[str] = []
        self.url = ""

    def siblings(self) -> list[dict[str, object]]:
        """The files as the API lists them: large ones by sha256, small ones by git's digest."""
        listed: list[dict[str, object]] = []
        for name, data in self.files.items():
            entry: dict[str, object] = {"rfilename": name}
            if self.metadata:
                entry["size"] = len(data)
                if name.endswith((".safetensors", ".gguf", ".bin")):
                    entry["lfs"] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
                else:
                    git = hashlib.sha1(f"blob {len(data)}\0".encode() + data)  # noqa: S324 - git's own digest
                    entry["blobId"] = git.hexdigest()
            listed.append(entry)
        return listed

    def pulled(self, name: str) -> list[str]:
        """The Range headers of the requests for a file that were not for its first byte alone."""
        return [asked for _, path, asked in self.requests if path.endswith(f"/{name}") and asked != "bytes=0-0"]


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

        def api(self) -> None:
            """Answer about the repository."""
            former, _, revision = self.path[len("/api/models/") :].partition("?")[0].partition("/revision/")
            if hub.api_refusals:
                status, headers = hub.api_refusals.pop(0)
                self.answer(status, b"", headers)
            elif former == "owner/model" != hub.name:
                place = f"/api/models/{hub.name}/revision/{revision}?blobs=true"
                self.answer(307, b"", {"Location": place})
            elif former != hub.name or revision not in {"main", COMMIT}:
                self.answer(404, b"")
            else:
                self.answer(200, json.dumps({"sha": hub.commit, "siblings": hub.siblings()}).encode())

        def do_GET(self) -> None:
            """Answer as the hub does."""
            hub.requests.append((self.command, self.path, self.headers.get("Range", "")))
            hub.tokens.append(self.headers.get("Authorization", ""))
            if self.path.startswith("/api/models/"):
                self.api()
                return
            name = self.path.rpartition("/")[2].partition("?")[0]
            if name not in hub.files:
                self.answer(404, b"")
            elif hub.token and self.headers.get("Authorization") != f"Bearer {hub.token}":
                self.answer(401, b"")
            elif hub.file_refusals:
                status, headers = hub.file_refusals.pop(0)
                self.answer(status, b"", headers)
            elif hub.elsewhere:
                data = hub.files[name]
                tag = {"X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{hashlib.sha256(data).hexdigest()}"'}
                self.answer(302, b"", {"Location": hub.elsewhere.format(name=name), **(tag if hub.linked else {})})
            else:
                self.file(name)

        def file(self, name: str) -> None:
            """Send a file, or the requested part of it."""
            data = hub.altered.get(name, hub.files[name])
            asked = self.headers.get("Range", "")
            if asked:
                first, _, last = asked[len("bytes=") :].partition("-")
                end = int(last) + 1 if last else len(data)
                shown = f"bytes {first}-{end - 1}/{len(data)}"
                self.answer(206, data[int(first) : end], {"Content-Range": shown})
            elif hub.cut_after and self.command == "GET" and len(data) > hub.cut_after:
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: hub.cut_after])
                self.close_connection = True
            else:
                self.answer(200, data)

        def do_HEAD(self) -> None:
            """Refuse, as URLs that are signed for GET do."""
            hub.requests.append((self.command, self.path, ""))
            self.answer(403, b"")

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
