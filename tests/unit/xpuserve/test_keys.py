"""API keys: the file, the requests, the terminal."""

from __future__ import annotations

import hmac
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.tests.unit.xpuserve.fakes import LIMITS, MODEL
from ansible_collections.xpu.fleet.tests.unit.xpuserve.process import serving
from fastapi.testclient import TestClient
from openai import AuthenticationError, OpenAI
from xpuserve import cli
from xpuserve.api.app import create_app
from xpuserve.engine.loop import Engine
from xpuserve.keys import Keys, KeysError, read

ANNA, BERT = "anna-0123456789abcdef", "bert-0123456789abcdef"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "api_keys", f"# of Anna\n{ANNA}\n\n  {BERT}  \n")


def write(path: Path, text: str, mode: int = 0o640) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.fixture
def client(engine: Engine, file: Path) -> TestClient:
    app = create_app(engine, MODEL, LIMITS, Keys(file))
    return TestClient(app, raise_server_exceptions=False)


def headers(key: str, scheme: str = "Bearer") -> dict[str, str]:
    return {"Authorization": f"{scheme} {key}"}


def test_every_key_of_the_file_is_accepted(client: TestClient) -> None:
    for header in (headers(ANNA), headers(BERT), headers(BERT, "bearer")):
        assert client.get("/v1/models", headers=header).status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        {},
        headers(""),
        headers(ANNA[:-1]),
        headers(ANNA + "x"),
        headers(ANNA, "Basic"),
        {"Authorization": ANNA},
        headers("# of Anna"),
        {"Authorization": "Bearer \xe9\xff"},
    ],
)
@pytest.mark.parametrize("path", ["/v1/models", "/v1/chat/completions", "/openapi.json", "/nothing", "/v1/../health"])
def test_nothing_else_is(client: TestClient, header: dict[str, str], path: str) -> None:
    raw = {name.encode(): value.encode("latin-1") for name, value in header.items()}
    response = client.post(path, content=b"{", headers=raw) if "chat" in path else client.get(path, headers=raw)
    if path.endswith("/../health"):  # the client itself makes /health of it
        assert response.status_code == 200
        return
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    error = response.json()["error"]
    assert error["code"] == "invalid_api_key"
    assert error.keys() == {"message", "type", "param", "code"}


def test_probes_need_no_key(client: TestClient) -> None:
    assert client.get("/health").status_code == client.get("/ready").status_code == 200


def test_every_key_is_compared_whichever_fits(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, compared = Keys(file), []

    def compare(known: bytes, given: bytes) -> bool:
        compared.append(len(known) == len(given))
        return known == given

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert keys.accept(ANNA)
    assert not keys.accept("x")
    assert compared == [True] * 4


@pytest.mark.parametrize(
    ("text", "mode", "complaint"),
    [
        ("# none\n\n", 0o640, "the file has no key"),
        (f"{ANNA}\nsecret but short\n", 0o640, "line 2 is not a key"),
        ("short\n", 0o600, "line 1 is not a key"),
        (f"{ANNA}\n", 0o644, "mode 0644 is too open"),
        (f"{ANNA}\n", 0o660, "mode 0660 is too open"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_without_its_keys(
    tmp_path: Path, text: str, mode: int, complaint: str
) -> None:
    path = write(tmp_path / "api_keys", text, mode)
    with pytest.raises(KeysError, match=complaint) as raised:
        read(path)
    assert str(path) in str(raised.value)
    assert "secret" not in str(raised.value)
    assert ANNA not in str(raised.value)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(KeysError, match="No such file"):
        Keys(tmp_path / "none")


def test_a_file_that_got_bad_leaves_the_former_keys(file: Path) -> None:
    keys = Keys(file)
    write(file, "")
    with pytest.raises(KeysError):
        keys.reload()
    assert keys.accept(ANNA)


def test_sighup_reads_the_keys_again(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "api_keys", ANNA)
    with serving(keys=path) as (process, ask):
        assert status(ask, ANNA) == 200
        assert status(ask, BERT) == 401
        write(path, BERT)
        process.send_signal(signal.SIGHUP)
        while status(ask, BERT) != 200:  # the signal is on its way
            assert process.poll() is None
        assert status(ask, ANNA) == 401
        arguments = Path(f"/proc/{process.pid}/cmdline").read_text() + Path(f"/proc/{process.pid}/environ").read_text()
        assert ANNA not in arguments
        assert BERT not in arguments
    out = "".join(capfd.readouterr())
    assert ANNA not in out
    assert BERT not in out


def test_sighup_without_keys_ends_nothing() -> None:
    with serving() as (process, ask):
        process.send_signal(signal.SIGHUP)
        assert status(ask, "") == 200
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.2)


def status(ask: Any, key: str) -> int:
    response = ask("Where?", headers(key) if key else {})
    response.read()
    return int(response.status)


@pytest.mark.parametrize("way", ["file", "environment"])
def test_the_terminal_sends_a_key(
    file: Path, way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(keys=file) as (_, ask):
        command = ["chat", "--url", ask.url, "--once", "Where?"]
        assert cli.main(command) == 1
        assert "says 401: an API key is required" in capsys.readouterr().err
        if way == "file":
            command += ["--api-key-file", str(file)]
        else:
            monkeypatch.setenv("XPUSERVE_API_KEY", BERT)
        assert cli.main(command) == 0
        assert "Paris" in capsys.readouterr().out


def test_the_terminal_says_that_a_key_cannot_be_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["chat", "--once", "x", "--api-key-file", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err
    monkeypatch.setenv("XPUSERVE_API_KEY", "two\nlines")
    assert cli.main(["chat", "--once", "x"]) == 2
    assert "two" not in capsys.readouterr().err


def test_the_official_client_is_told_that_its_key_is_not_known(file: Path) -> None:
    with serving(keys=file) as (_, ask), OpenAI(base_url=f"{ask.url}/v1", api_key=BERT) as client:
        assert client.models.list().data[0].id == MODEL
        with pytest.raises(AuthenticationError) as raised:
            client.with_options(api_key="sk-unknown").models.list()
        assert raised.value.code == "invalid_api_key"
