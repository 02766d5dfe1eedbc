"""The rig's own rules: definitions, wheels for a Python, the cache, the mirror, the GPU stand-ins."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from rig import cache, gpu, mirror, wheels
from rig.fleet import FLEETS, Fleet
from rig.host import RigError


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A private cache."""
    for name, folder in {"ROOT": "", "ARTIFACTS": "artifacts", "RUN": "run"}.items():
        monkeypatch.setattr(cache, name, tmp_path / "cache" / folder)
    return tmp_path / "cache"


def test_an_artifact_is_made_once_and_old_ones_go(own_cache: Path) -> None:
    made = []

    def build(target: Path) -> None:
        made.append(target)
        (target / "file").write_text("content")

    first = cache.artifact("thing", {"n": 1}, build)
    assert cache.artifact("thing", {"n": 1}, build) == first
    second = cache.artifact("thing", {"n": 2}, build)
    assert len(made) == 2
    assert not first.exists()
    assert (second / "file").read_text() == "content"


def test_a_failed_build_leaves_nothing_that_counts(own_cache: Path) -> None:
    def build(target: Path) -> None:
        raise RigError("no network")

    with pytest.raises(RigError, match="no network"):
        cache.artifact("thing", 1, build)
    assert not list(cache.ARTIFACTS.glob("thing-*"))


def test_an_artifact_in_use_stays(own_cache: Path) -> None:
    first = cache.artifact("thing", 1, lambda target: None)
    state = cache.RUN / "demo" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"artifacts": [str(first)]}))
    cache.artifact("thing", 2, lambda target: None)
    assert first.exists()


def test_nothing_outside_the_cache_is_deleted(own_cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    with pytest.raises(RigError, match="not deleted"):
        cache.remove(outside)
    assert outside.exists()


def test_conditions_of_requirements_are_weighed_for_the_nodes_python(tmp_path: Path) -> None:
    path = tmp_path / "r.txt"
    path.write_text(
        "numpy==1 ; python_full_version < '3.12' \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n    # via x\n"
        "numpy==2 ; python_full_version >= '3.12' --hash=sha256:cc\ncolorama==3 ; sys_platform == 'win32'\n"
    )
    assert [entry.text() for entry in wheels.requirements(path, "3.11")] == [
        "numpy==1 --hash=sha256:aa --hash=sha256:bb"
    ]
    assert [entry.line for entry in wheels.requirements(path, "3.13")] == ["numpy==2"]


@pytest.mark.parametrize("path", sorted(FLEETS.glob("*.yml")), ids=lambda path: path.stem)
def test_every_fleet_of_the_rig_is_one(path: Path) -> None:
    assert Fleet.load(path.stem).nodes


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "no list of platforms"),
        ("platforms: [{name: a, address: 10.77.9.11}]", "userland"),
        ("platforms: [{name: a, userland: arch, address: 10.77.9.11}]", "arch"),
        (
            "platforms: [{name: a, userland: debian12, address: 10.77.9.11},"
            " {name: b, userland: debian12, address: 10.77.8.11}]",
            "one /24 network",
        ),
    ],
)
def test_a_wrong_definition_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text(text)
    with pytest.raises(RigError, match=said):
        Fleet.load("x", path)


def test_two_fleets_do_not_share_a_network(own_cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "fleet.yml"
    path.write_text("platforms: [{name: a, userland: debian12, address: 10.77.9.11}]")
    state = cache.RUN / "one" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text(json.dumps({"definition": Fleet.load("one", path).definition}))
    with pytest.raises(RigError, match=r"fleet one is on network 10\.77\.9\.1/24; take it down"):
        Fleet.load("two", path).up()


def test_the_gpu_tree_is_read_as_sysfs_is(tmp_path: Path) -> None:
    card = gpu.Gpu.parse({"id": "56a0", "memory": 17179869184, "driver": "i915"})
    gpu.write_tree(tmp_path, [card, gpu.Gpu.parse({"id": "0bd5"})])
    first, second = sorted((tmp_path / "devices").iterdir())
    assert (first.name, first.is_symlink()) == ("0000:03:00.0", True)
    assert (first / "device").read_text() == "0x56a0\n"
    assert (first / "class").read_text() == "0x030000\n"
    assert (first / "driver").resolve().name == "i915"
    assert (first / "drm/renderD128").is_dir()
    assert (second / "class").read_text() == "0x038000\n"
    assert not (second / "driver").exists()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A mirror with two folders laid over each other."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}+cpu.whl").write_text(name)
    (tmp_path / "secret").write_text("secret")
    mounts = tmp_path / "mounts.json"
    mounts.write_text(json.dumps({"/wheels": [str(tmp_path / "a"), str(tmp_path / "b")]}))
    running = mirror.serve("127.0.0.1", 0, mirror.MountFile(mounts))
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()
    running.server_close()


def test_the_mirror_lists_and_serves(server: str) -> None:
    page = urllib.request.urlopen(f"{server}/wheels/").read().decode()
    assert 'href="/wheels/a%2Bcpu.whl"' in page
    assert "b+cpu.whl" in page
    assert urllib.request.urlopen(f"{server}/wheels/b%2Bcpu.whl").read() == b"b"


@pytest.mark.parametrize("path", ["/wheels/none", "/wheels/../secret", "/wheels/%2e%2e/secret", "/other/"])
def test_the_mirror_serves_nothing_else(server: str, path: str) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(server + path)
    assert caught.value.code == 404
