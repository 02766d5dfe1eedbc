"""Answers of hubs, mirrors and the hosts behind them, and the reactions to them."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.model.client import LONGEST_PAUSE, Client, FetchError
from ansible_collections.xpu.fleet.plugins.module_utils.model.client import asked_pause as pause_of
from ansible_collections.xpu.fleet.plugins.module_utils.model.hub import RemoteFile, download, hub_files, probe
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import (
    StoreError,
    WeightsRequest,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.store import (
    Stored,
    fetch,
    plan,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.hub import COMMIT, Hub, serve
from ansible_collections.xpu.fleet.tests.unit.plugins.support.weight_files import safetensors

TOKEN = "hf_aBcDeFgHiJkLmNoP"
NOTHING = Stored("it does not exist")


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as running:
        running.files = {"config.json": b"{}", "tokenizer.json": b"{}", "model.safetensors": safetensors(4000)}
        yield running


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The requested pauses; tests wait for none of them."""
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    return pauses


def wanted(hub: Hub, place: Path, **more: Any) -> WeightsRequest:
    source = {"kind": "huggingface", "location": "owner/model", "revision": "main", **more.pop("source", {})}
    return WeightsRequest(directory=place, source=source, formats=["safetensors"], endpoint=hub.url, **more)


REFUSALS = {
    "a token that was revoked, for a public model": (
        401,
        {"X-Error-Message": "Invalid credentials in Authorization header"},
        TOKEN,
        ["does not accept model_token", "leave model_token empty"],
    ),
    "a token that is expired": (401, {"X-Error-Message": "User Access Token is expired"}, TOKEN, ["does not accept"]),
    "a token that is none, as older hubs say it": (
        401,
        {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."},
        TOKEN,
        ["does not accept model_token"],
    ),
    "gated, without a token": (
        401,
        {"X-Error-Code": "GatedRepo"},
        "",
        ["is gated", "accept its licence", "model_token"],
    ),
    "gated, and not granted": (
        403,
        {"X-Error-Code": "GatedRepo", "X-Error-Message": "you are not in the authorized list"},
        TOKEN,
        ["is gated", "has not been granted access", "not in the authorized list"],
    ),
    "mistyped, asked without a token": (
        401,
        {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Invalid username or password."},
        "",
        ["mistyped", "private", "model_token"],
    ),
    "mistyped or private, asked with a token": (
        404,
        {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"},
        TOKEN,
        ["no owner/model that model_token may read", "mistyped"],
    ),
    "a fine-grained token without the right": (
        403,
        {"X-Error-Message": "Please enable access to public gated repositories in your fine-grained token settings"},
        TOKEN,
        ["lacks the right", "fine-grained token settings"],
    ),
    "another revision": (404, {"X-Error-Code": "RevisionNotFound"}, "", ["no owner/model at revision main"]),
    "disabled": (403, {"X-Error-Message": "Access to this resource is disabled."}, TOKEN, ["has disabled owner/model"]),
    "a mirror that says nothing": (404, {}, "", ["no owner/model at revision main"]),
    "a proxy that wants a password": (407, {}, "", ["xpu_proxy"]),
    "not given out for legal reasons": (451, {}, TOKEN, ["for legal reasons", "other weights"]),
    "not given out for legal reasons, with words": (
        451,
        {"X-Error-Message": "This repository is subject to a court order"},
        "",
        ["for legal reasons", "court order"],
    ),
    "a redirect to nowhere": (302, {}, "", ["in a circle or nowhere", "model_hub_endpoint"]),
    "a redirect to another scheme": (302, {"Location": "gopher://x/?sig=abc"}, "", ["in a circle or nowhere"]),
    "a firewall": (403, {"X-Error-Message": "blocked by policy\x1b[31m"}, "", ["firewall", "blocked by policy"]),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_are_told_apart(hub: Hub, case: str) -> None:
    status, headers, token, words = REFUSALS[case]
    hub.api_refusals = [(status, headers)]
    with pytest.raises(FetchError) as refused:
        hub_files(Client(token), hub.url, "owner/model", "main")
    said = str(refused.value)
    assert all(word in said for word in words) and str(status) in said, said
    assert TOKEN not in said and said.isprintable()
    assert ("is gated:" in said) == (case == "gated, without a token")


@pytest.mark.parametrize("code", [301, 302, 307, 308])
def test_redirects_in_a_circle_are_told_as_such(hub: Hub, code: int) -> None:
    path = "/api/models/owner/model/revision/main?blobs=true"
    hub.api_refusals = [(code, {"Location": f"{path}&sig=abc"})] * 30
    with pytest.raises(FetchError) as refused:
        hub_files(Client(TOKEN), hub.url, "owner/model", "main")
    said = str(refused.value)
    assert "in a circle" in said and "model_hub_endpoint" in said and TOKEN not in said and "abc" not in said
    assert said.isprintable()


@pytest.mark.parametrize(("status", "words"), [(302, "in a circle or nowhere"), (451, "for legal reasons")])
def test_what_becomes_of_a_single_file_is_told(hub: Hub, tmp_path: Path, status: int, words: str) -> None:
    hub.file_refusals = [(status, {"Location": "/owner/model/resolve/model.safetensors"} if status == 302 else {})] * 50
    with pytest.raises(FetchError, match=words):
        plan(wanted(hub, tmp_path / "m"), NOTHING)


def test_a_hub_that_is_asked_too_often_gets_the_pause_that_it_asks_for(hub: Hub, slept: list[float]) -> None:
    hub.api_refusals = [
        (429, {"Retry-After": "11"}),
        (503, {}),
        (429, {"RateLimit": '"api";r=0;t=23'}),
    ]
    assert hub_files(Client(), hub.url, "owner/model", "main")[0] == COMMIT
    assert slept == [11, 4, 23]


def test_a_pause_beyond_a_runs_patience_is_named(hub: Hub, slept: list[float]) -> None:
    for headers in (
        {"Retry-After": "86400"},
        {"Retry-After": "Fri, 31 Dec 9999 23:59:59 GMT"},
        {"Retry-After": "9" * 9},
    ):
        hub.api_refusals = [(429, headers)]
        with pytest.raises(FetchError, match=r"asks to wait until \d{4}-\d\d-\d\d \d\d:\d\d UTC.*model_token"):
            hub_files(Client(), hub.url, "owner/model", "main")
    assert slept == []


@pytest.mark.parametrize("value", ["soon", "-5", "", "1e9", "12 parsecs"])
def test_a_pause_that_cannot_be_read_is_none(value: str) -> None:
    assert pause_of({"Retry-After": value}, 0.0) is None


def test_a_date_counts_from_the_servers_own_and_one_that_is_over_is_no_pause() -> None:
    sent, until = (formatdate(1_700_000_000 + seconds, usegmt=True) for seconds in (0, 42))
    assert pause_of({"Retry-After": until, "Date": sent}, 5.0) == 42
    assert pause_of({"Retry-After": formatdate(10, usegmt=True)}, 1000.0) == 0
    assert pause_of({"Retry-After": "7"}, 0.0) == 7 <= LONGEST_PAUSE


def test_a_hub_that_stays_busy_is_given_up(hub: Hub, slept: list[float]) -> None:
    hub.api_refusals = [(503, {})] * 5
    with pytest.raises(FetchError, match=r"cannot serve owner/model now.*503"):
        hub_files(Client(), hub.url, "owner/model", "main")
    assert slept == [2, 4, 8, 16]


def test_a_renamed_repository_is_followed_and_named(hub: Hub, tmp_path: Path) -> None:
    hub.name = "neworg/model-hf"
    request = wanted(hub, tmp_path / "m")
    manifest = fetch(request, NOTHING)
    assert set(manifest["files"]) == set(hub.files)
    assert any("neworg/model-hf" in note and "model_source" in note for note in request.notes)
    assert not [path for _, path, _ in hub.requests if path.startswith("/owner/model/resolve")]


@pytest.mark.parametrize(
    ("asked", "answered"),
    [("a" * 40, "c" * 40), ("main", "../../x"), ("main", "f" * 39), ("a" * 40, "A" * 40)],
)
def test_a_commit_that_is_not_the_pinned_one_is_refused(hub: Hub, asked: str, answered: str) -> None:
    hub.commit = answered
    with pytest.raises(FetchError, match="is not the pinned commit"):
        hub_files(Client(), hub.url, "owner/model", asked)


def test_what_is_no_hub_is_named_with_the_way_out(hub: Hub) -> None:
    hub.commit = None  # type: ignore[assignment]
    with pytest.raises(FetchError, match="None"):
        hub_files(Client(), hub.url, "owner/model", "main")
    with serve() as page:
        page.files = {"main": b"<html>log in</html>"}
        page.api_refusals = [(302, {"Location": "/main"})]
        with pytest.raises(FetchError, match=r"does not answer as a model hub.*model_source.sha256"):
            hub_files(Client(), page.url, "owner/model", "main")


@pytest.fixture
def closed() -> Iterator[int]:
    """A port without a listener."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("signature", ["?Signature=abc", "?X-Amz-Signature=abc&X-Amz-Expires=3600", "?sig=abc"])
def test_a_host_behind_the_hub_that_a_firewall_blocks_is_named_first(
    hub: Hub, tmp_path: Path, closed: int, signature: str
) -> None:
    hub.elsewhere = f"http://localhost:{closed}/xet/{{name}}{signature}"
    with pytest.raises(FetchError) as refused:
        plan(wanted(hub, tmp_path / "m"), NOTHING)
    said = str(refused.value)
    assert f"localhost:{closed}" in said and "firewall" in said and "abc" not in said, said
    assert not (tmp_path / "m").exists() and not list(tmp_path.iterdir())


def test_a_host_behind_the_hub_that_refuses_is_named(hub: Hub, tmp_path: Path) -> None:
    with serve() as storage:
        storage.files, storage.token = dict(hub.files), "its own"
        hub.elsewhere = storage.url + "/{name}?sig=abc"
        with pytest.raises(FetchError) as refused:
            plan(wanted(hub, tmp_path / "m"), NOTHING)
    said = str(refused.value)
    assert storage.url[len("http://") :] in said and "401" in said and "model_token" not in said and "abc" not in said


def test_signed_urls_need_no_head_and_see_no_token(hub: Hub, tmp_path: Path) -> None:
    with serve() as storage:
        storage.files = dict(hub.files)
        hub.token, hub.elsewhere = TOKEN, storage.url + "/{name}?sig=abc"
        assert set(fetch(wanted(hub, tmp_path / "m", token=TOKEN), NOTHING)["files"]) == set(hub.files)
        assert storage.tokens and not any(storage.tokens)
        assert {method for method, _, _ in (*storage.requests, *hub.requests)} == {"GET"}


def test_a_url_that_refuses_head_is_measured(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"big.gguf": b"GGUF" * 1000}
    file = probe(Client(), RemoteFile("big.gguf", f"{hub.url}/big.gguf", -1))
    assert (file.size, [asked for _, _, asked in hub.requests]) == (4000, ["bytes=0-0"])


def test_a_mirror_without_digests_is_refused_before_anything_comes(hub: Hub, tmp_path: Path) -> None:
    hub.metadata = False
    with pytest.raises(FetchError, match=r"gives no digest of .*model.safetensors.*model_source.sha256"):
        plan(wanted(hub, tmp_path / "m"), NOTHING)
    assert hub.pulled("model.safetensors") == [] and not list(tmp_path.iterdir())


def test_a_mirror_whose_redirects_have_digests_is_used(hub: Hub, tmp_path: Path) -> None:
    with serve() as storage:
        storage.files = dict(hub.files)
        hub.metadata, hub.linked, hub.elsewhere = False, True, storage.url + "/{name}"
        assert set(fetch(wanted(hub, tmp_path / "m"), NOTHING)["files"]) == set(hub.files)
        storage.altered["tokenizer.json"] = b"[]"
        with pytest.raises(FetchError, match="is not the pinned file"):
            fetch(wanted(hub, tmp_path / "n"), NOTHING)


def test_the_operators_own_digests_need_no_api(hub: Hub, tmp_path: Path) -> None:
    hub.metadata, hub.api_refusals = False, [(404, {})] * 20
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in hub.files.items()}
    source = {"revision": COMMIT, "sha256": digests}
    assert fetch(wanted(hub, tmp_path / "m", source=source), NOTHING)["revision"] == COMMIT
    assert not [path for _, path, _ in hub.requests if "/api/" in path]
    source["sha256"] = {**digests, "config.json": "0" * 64}
    with pytest.raises(FetchError, match=r"config.json is not the pinned file"):
        fetch(wanted(hub, tmp_path / "n", source=source), NOTHING)


@pytest.mark.parametrize(
    "endpoint", ["http://hub.invalid", "http://user:pa55word@hub.invalid:8080", "http://192.0.2.7"]
)
def test_a_token_goes_over_plain_http_only_where_the_operator_says_so(endpoint: str) -> None:
    with pytest.raises(FetchError, match=r"plain http.*model_token_plain_http") as refused:
        hub_files(Client(TOKEN), endpoint, "owner/model", "main")
    assert TOKEN not in str(refused.value) and "pa55word" not in str(refused.value)
    if "192" not in endpoint:
        with pytest.raises(FetchError, match="cannot be reached"):
            hub_files(Client(TOKEN, plain_http=True), endpoint, "owner/model", "main")


def test_a_mirror_with_user_and_password_gets_them_and_nobody_else(hub: Hub, tmp_path: Path) -> None:
    with serve() as storage:
        storage.files = dict(hub.files)
        hub.elsewhere = storage.url + "/{name}"
        request = wanted(hub, tmp_path / "m")
        request = WeightsRequest(
            directory=request.directory, source=request.source, formats=request.formats,
            endpoint=hub.url.replace("http://", "http://user:w%40rd@"),
        )  # fmt: skip
        plan(request, NOTHING)
        assert set(hub.tokens) == {"Basic dXNlcjp3QHJk"} and set(storage.tokens) == {""}


def full(place: Path, size: int) -> str:
    """What a download into a file system of SIZE bytes says; another process, whose limit it is."""
    code = (
        "import resource, signal, sys, pathlib\n"
        "from ansible_collections.xpu.fleet.plugins.module_utils.model import hub\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)\n"
        "hub.time.sleep = lambda seconds: print('slept')\n"
        "file = hub.RemoteFile('m.gguf', sys.argv[1], 4_000_000, sha256='0' * 64)\n"
        "try: hub.download(hub.Client(), file, pathlib.Path(sys.argv[2]))\n"
        "except hub.FetchError as error: print(error)\n"
    )
    with serve() as hub:
        hub.files = {"m.gguf": bytes(4_000_000)}
        arguments = [sys.executable, "-c", code, f"{hub.url}/m.gguf", str(place), str(size)]
        done = subprocess.run(
            arguments, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": ":".join(sys.path)}
        )
        assert len(hub.requests) == 1
    return done.stdout


@pytest.mark.parametrize("size", [1, 1_000_000, 2_500_000, 3_999_999])
def test_a_file_system_that_fills_up_is_named_at_once(tmp_path: Path, size: int) -> None:
    (tmp_path / "other").write_bytes(b"stays")
    said = full(tmp_path / "m.gguf", size)
    assert str(tmp_path) in said and "is full" in said and "model_directory" in said and "slept" not in said, said
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_the_next_run_heals_what_a_full_file_system_left(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"m.gguf": bytes(4_000_000)}
    file = RemoteFile("m.gguf", f"{hub.url}/m.gguf", 4_000_000, sha256=hashlib.sha256(bytes(4_000_000)).hexdigest())
    full(tmp_path / "m.gguf", 2_500_000)
    download(Client(), file, tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").stat().st_size == 4_000_000


def test_one_part_behind_a_url_is_refused(hub: Hub, tmp_path: Path) -> None:
    location = f"{hub.url}/m-00001-of-00003.gguf"
    source = {"kind": "url", "location": location, "sha256": "0" * 64}
    with pytest.raises(StoreError, match="one of 00003 parts"):
        plan(WeightsRequest(directory=tmp_path / "m", source=source, formats=["gguf"]), NOTHING)
    assert hub.requests == []


def test_quantised_weights_of_a_hub_are_refused_before_anything_comes(hub: Hub, tmp_path: Path) -> None:
    hub.files["config.json"] = json.dumps({"quantization_config": {"quant_method": "gptq"}}).encode()
    with pytest.raises(Exception, match="already quantised \\(gptq\\)"):
        plan(wanted(hub, tmp_path / "m"), NOTHING)
    assert hub.pulled("model.safetensors") == []
