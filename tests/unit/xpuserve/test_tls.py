"""HTTPS: certificates that change, clients that speak something else, and trust."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from ansible_collections.xpu.fleet.tests.unit.plugins.support.certificates import Files, make
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import MODEL, wait_for
from ansible_collections.xpu.fleet.tests.unit.xpuserve.process import serving
from xpuserve import cli, doctor, server
from xpuserve.api.app import create_app
from xpuserve.api.completer import Limits
from xpuserve.client import APIClient, ClientError, local
from xpuserve.door import Door, protocol
from xpuserve.engine.loop import Engine
from xpuserve.tls import Certificate, TLSError, trusting


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return make(tmp_path)


class Serve:
    """Serves with a certificate, in this process."""

    def __init__(self, engine: Engine, files: Files, stack: ExitStack) -> None:
        self.certificate = Certificate(*files)
        self._engine, self._stack = engine, stack

    def __call__(self, connections: int = 9, **seconds: Any) -> int:
        """The port."""
        self.door = Door(connections, **seconds)
        options: Any = {"port": 0, "log_level": "error", "lifespan": "off"}
        app = create_app(self._engine, MODEL, Limits(1024, 16))
        self.server = uvicorn.Server(uvicorn.Config(app, http=protocol(self.door, self.certificate.context), **options))
        thread = threading.Thread(target=self.server.run)
        thread.start()
        self._stack.callback(thread.join, 5)
        self._stack.callback(setattr, self.server, "should_exit", True)
        wait_for(lambda: self.server.started)
        return int(self.server.servers[0].sockets[0].getsockname()[1])


@pytest.fixture
def serve(engine: Engine, files: Files) -> Iterator[Serve]:
    with ExitStack() as stack:
        yield Serve(engine, files, stack)


def served(port: int) -> str:
    """The certificate that a client is shown."""
    return ssl.get_server_certificate(("127.0.0.1", port), timeout=60)


def refused(port: int, sent: bytes) -> bytes:
    """What a connection that sends this reads to its end."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(sent)
        got = b""
        try:
            while data := connection.recv(4096):
                got += data
        except ConnectionResetError:
            pass
        return got


def test_answers_are_streamed_over_tls(serve: Serve, files: Files) -> None:
    client = APIClient(f"https://localhost:{serve()}", tls=trusting(files.certificate))
    assert client.first_model() == MODEL
    events = list(client.events({"model": MODEL, "messages": [{"role": "user", "content": "Where?"}]}))
    assert "".join(event.text for event in events)


def test_what_is_sent_with_the_end_of_the_handshake_is_read(serve: Serve, files: Files) -> None:
    """TLS 1.3 lets a client send its request with its Finished, and then wait."""
    context = trusting(files.certificate)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", serve()), timeout=60) as connection:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                connection.sendall(outgoing.read())
                incoming.write(connection.recv(65536))
        tls.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        connection.sendall(outgoing.read())
        got = b""
        while b'"ok"' not in got:
            try:
                got += tls.read()
            except ssl.SSLWantReadError:
                incoming.write(connection.recv(65536))
        assert got.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x16\x03\x01\x00\x01\x00", b""])
def test_who_does_not_speak_tls_leaves_no_trace(serve: Serve, sent: bytes) -> None:
    port = serve(head_seconds=0.3)
    assert b"HTTP" not in refused(port, sent)
    wait_for(lambda: not serve.door.connections)
    wait_for(lambda: not serve.server.server_state.connections)


def test_connections_without_a_handshake_make_room(serve: Serve, files: Files) -> None:
    port = serve(connections=3)
    silent = [socket.create_connection(("127.0.0.1", port), timeout=60) for _ in range(6)]
    assert silent[0].recv(1) == b""
    assert APIClient(f"https://localhost:{port}", tls=trusting(files.certificate)).first_model() == MODEL
    for connection in silent:
        connection.close()
    wait_for(lambda: not serve.server.server_state.connections)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_versions_are_refused(serve: Serve, files: Files) -> None:
    old = trusting(files.certificate)
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_1
    with pytest.raises(ClientError):
        APIClient(f"https://localhost:{serve()}", tls=old).first_model()


def test_a_changed_certificate_is_served_without_a_restart(
    tmp_path: Path, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "CERTIFICATE_SECONDS", 0.05)
    certificate = Certificate(*files)

    async def kept() -> None:
        task = asyncio.create_task(server.Server._keep_certificate(None, certificate))  # type: ignore[arg-type]
        reads = certificate._read
        while certificate._read == reads:
            await asyncio.sleep(0.01)
        task.cancel()

    port = Shown(certificate)
    with port:
        first = served(port.number)
        make(tmp_path)
        asyncio.run(asyncio.wait_for(kept(), 60))
        assert served(port.number) != first
        assert served(port.number).split() == files.certificate.read_text().split()


class Shown:
    """Shows a certificate to whoever asks."""

    def __init__(self, certificate: Certificate) -> None:
        self._context = certificate.context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.number: int = self._listener.getsockname()[1]

    def __enter__(self) -> Shown:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *_ignored: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ignored = self._listener.accept()
                with self._context.wrap_socket(connection, server_side=True):
                    pass
            except OSError:
                if self._listener.fileno() < 0:
                    return


def test_the_process_reads_its_certificate_again_on_a_signal(files: Files, tmp_path: Path) -> None:
    with serving(probe=False, **files.settings) as (process, ask):
        port = int(ask.url.rpartition(":")[2])
        client = APIClient(f"https://localhost:{port}", tls=trusting(files.certificate))
        assert client.first_model() == MODEL  # the process listens, and its signals are handled
        first = served(port)
        make(tmp_path)
        process.send_signal(signal.SIGHUP)
        wait_for(lambda: served(port) != first)
        with pytest.raises(ClientError, match="CERTIFICATE_VERIFY_FAILED"):
            client.first_model()


def test_of_a_new_pair_that_does_not_fit_nothing_is_taken(tmp_path: Path, files: Files) -> None:
    certificate = Certificate(*files)
    shown = Shown(certificate)
    with shown:
        first = served(shown.number)
        (tmp_path / "other").mkdir()
        make(tmp_path / "other").key.replace(files.key)
        with pytest.raises(TLSError, match="the key does not match the certificate"):
            certificate.reload()
        assert served(shown.number) == first
        assert not certificate.reload()  # it is said once


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda files: files.key.unlink(), "tls.key: No such file"),
        (lambda files: files.certificate.write_text("x"), "not a certificate and a key in PEM"),
        (lambda files: files.key.chmod(0o644), "mode 0644 is too open"),
        (
            lambda files: subprocess.run(
                ["openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", files.key, "-out", files.key],
                check=True,
                capture_output=True,
            ),
            "the key is encrypted",
        ),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(files: Files, spoil: Any, message: str) -> None:
    spoil(files)
    with pytest.raises(TLSError, match=message):
        Certificate(*files)


def test_a_configuration_with_one_file_of_the_two_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    model = {"name": "m", "path": "/x", "format": "gguf", "context_length": 64}
    settings = {"engine": "openvino", "device": "cpu", "cache_dir": "/x", "model": model, "tls_key": "/k"}
    config.write_text(json.dumps(settings))
    assert cli.main(["check", "--config", str(config)]) == 2
    assert "tls_certificate and tls_key go together" in capsys.readouterr().err


def configured(root: Path, port: int, **more: Any) -> Path:
    """The configuration of a node's service."""
    path = root / "etc/xpuserve/config.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"host": "0.0.0.0", "port": port, "model": {"name": MODEL}, **more}))  # noqa: S104
    return path


def test_a_node_asks_itself_whatever_name_its_certificate_has(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    files = make(tmp_path, "node.example.com")
    serve.certificate.reload()
    config = configured(tmp_path, serve(), **files.settings)
    assert local(config).url.startswith("https://127.0.0.1:")
    monkeypatch.setattr(cli, "_CONFIG", config)
    assert cli.main(["chat", "--once", "Where?"]) == 0
    assert doctor.look(tmp_path, seconds=10)["service"]["answer"] == "given"
    other = tmp_path / "other"
    other.mkdir()
    make(other).certificate.replace(files.certificate)
    assert cli.main(["chat", "--once", "Where?"]) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err
    assert "CERTIFICATE_VERIFY_FAILED" in doctor.look(tmp_path, seconds=10)["service"]["answer"]


def test_of_others_the_name_counts(serve: Serve, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = make(tmp_path, "node.example.com")
    serve.certificate.reload()
    url = f"https://localhost:{serve()}"
    assert cli.main(["chat", "--url", url, "--ca-file", str(files.certificate), "--once", "Where?"]) == 1
    assert "Hostname mismatch" in capsys.readouterr().err
    assert cli.main(["chat", "--url", url, "--once", "Where?"]) == 1
    assert cli.main(["chat", "--url", url, "--ca-file", str(tmp_path / "none"), "--once", "Where?"]) == 2
    assert "none: No such file" in capsys.readouterr().err
