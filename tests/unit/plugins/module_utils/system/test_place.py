"""Root below directories that another user can write to: links planted before and during runs lead nowhere."""

from __future__ import annotations

import itertools
import json
import os
import pwd
import random
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.model import store
from ansible_collections.xpu.fleet.plugins.module_utils.model.client import FetchError
from ansible_collections.xpu.fleet.plugins.module_utils.model.conversion import Conversion, convert
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import StoreError, WeightsRequest
from ansible_collections.xpu.fleet.plugins.module_utils.model.store import read_stored, refresh
from ansible_collections.xpu.fleet.plugins.module_utils.model.weights import WeightsChoiceError
from ansible_collections.xpu.fleet.plugins.module_utils.runtime.python_environment import (
    RuntimeSetupError,
    Sources,
    Wanted,
    create,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.place import (
    NotOwnError,
    Place,
    discard,
    is_own,
    take_over,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.hub import Hub, serve

#: The other user: nobody if root runs the tests, otherwise that user itself.
OTHER = pwd.getpwnam("nobody") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
NAMES = ("tiny", ".tiny.incoming", ".tiny.replaced")
FILES = (
    ".source.json",
    ".xpu-manifest.json.part",
    "config.json",
    "config.json.part",
    "model.safetensors.part",
    "model",
)
REFUSALS = (StoreError, FetchError, WeightsChoiceError, NotOwnError, OSError)
WEIGHTS = {"model.safetensors": b"weights" * 5000, "config.json": b"{}", "tokenizer.json": b"{}"}


def as_other() -> None:
    """Become the other user, in a child."""
    if os.geteuid() == 0:
        os.setgid(OTHER.pw_gid)
        os.setuid(OTHER.pw_uid)


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A directory to which anybody can go: pytest closes its own to others whenever a session of it begins."""
    with tempfile.TemporaryDirectory(prefix="xpu-fleet-place-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A directory that is the other user's."""
    models = tmp_path / "models"
    models.mkdir()
    models.chmod(0o777)
    os.chown(models, OTHER.pw_uid, OTHER.pw_gid)
    return models


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """Places that nobody else may change; compared at the end."""
    outside = tmp_path / "outside"
    (outside / "inner").mkdir(parents=True)
    for name in ("secret", "inner/secret"):
        (outside / name).write_text("mine alone")
        (outside / name).chmod(0o600)
    outside.chmod(0o711)
    before = state(outside)
    yield outside
    assert state(outside) == before


def state(root: Path) -> dict[str, Any]:
    """Every file below a directory with its mode, owner, time and content."""
    found = {}
    for path in (root, *sorted(root.rglob("*"))):
        status = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        found[str(path)] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_nlink, content)
    return found


def attack(models: Path, outside: Path) -> None:
    """Plant links for ever: whatever is there goes aside for links to places outside."""
    for number in itertools.count():
        name, kind = models / random.choice(NAMES), random.randrange(4)  # noqa: S311
        with suppress(OSError):
            if os.path.lexists(name):
                name.rename(models / f"aside{number}")
            if kind < 2:
                name.symlink_to([outside, outside / "secret"][kind])
            elif kind == 2:
                name.mkdir()
                for file in FILES:
                    (name / file).symlink_to(outside / random.choice(["secret", "new", "."]))  # noqa: S311


def child(work: Callable[[], None]) -> int:
    """Do something as the other user, in a process of its own; return its number."""
    process = os.fork()
    if not process:
        try:
            as_other()
            with suppress(OSError):
                work()
        finally:
            os._exit(0)
    return process


@contextmanager
def attacked(models: Path, outside: Path) -> Iterator[None]:
    """Let the other user plant links until the block ends."""
    attacker = child(lambda: attack(models, outside))
    try:
        yield
        assert os.waitpid(attacker, os.WNOHANG) == (0, 0)
    finally:
        os.kill(attacker, signal.SIGKILL)
        os.waitpid(attacker, 0)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as running:
        running.files = dict(WEIGHTS)
        yield running


def of_the_hub(hub: Hub, models: Path) -> WeightsRequest:
    """Weights of a hub."""
    source = {"kind": "huggingface", "location": "owner/model", "revision": "main"}
    return WeightsRequest(models / "tiny", source, ["safetensors"], endpoint=hub.url)


def fetched(hub: Hub, models: Path) -> None:
    """Fetch them as the module does."""
    request = of_the_hub(hub, models)
    stored = read_stored(request)
    if stored.reason:
        store.fetch(request, stored)
    else:
        refresh(request, stored)


def copied(_hub: Hub, models: Path) -> None:
    """Take over files that were copied from the controller, as the module does."""
    listing = {name: [len(data), 5] for name, data in WEIGHTS.items()}
    source = {"kind": "controller_path", "location": "/home/me/model"}
    request = WeightsRequest(models / "tiny", source, ["safetensors"], listing=listing)
    store.prepare_incoming(request, read_stored(request))
    for name, data in WEIGHTS.items():
        (request.place.incoming / name).write_bytes(data)
    store.commit_incoming(request, "")


def write_output(place: Path) -> None:
    """What a conversion leaves."""
    (place / "more").mkdir(parents=True)
    for name in ("model.bin", "more/part.bin"):
        (place / name).write_bytes(b"low bits")


def converted(_hub: Hub, models: Path, output: Callable[[Path], None] = write_output) -> None:
    """Convert as the module does; the sandbox is a child of the other user."""
    request = WeightsRequest(models / "tiny", {"kind": "low_bit", "location": "tiny"}, ["low_bit"])
    job = Conversion(request, {"model": {"low_bit": "sym_int4"}}, ["true"], OTHER.pw_name)

    def run(command: list[str], **_options: Any) -> subprocess.CompletedProcess[str]:
        os.waitpid(child(lambda: output(Path(command[-1]))), 0)
        return subprocess.CompletedProcess(command, 0, "", "")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess, "run", run)
        convert(job)


@pytest.mark.parametrize("work", [fetched, copied, converted])
@pytest.mark.parametrize(
    "planted", [(kind, name) for kind in ("directory", "file", "filled", "absent") for name in NAMES]
)
def test_links_planted_before_a_run_lead_nowhere(
    hub: Hub, models: Path, outside: Path, work: Any, planted: tuple[str, str]
) -> None:
    kind, name = planted
    if kind == "filled":
        (models / name).mkdir()
        for file in FILES:
            (models / name / file).symlink_to(outside / "secret")
        os.chown(models / name, OTHER.pw_uid, OTHER.pw_gid)
        (models / name).chmod(0o777)
    else:
        (models / name).symlink_to({"directory": outside, "file": outside / "secret"}.get(kind, outside / "new"))
    work(hub, models)
    found = models / "tiny"
    assert not found.is_symlink() and found.stat().st_uid == os.geteuid()
    assert stat.S_IMODE(found.stat().st_mode) == 0o755
    assert json.loads((found / store.MANIFEST).read_text())["files"]
    assert sorted(path.name for path in models.iterdir()) == ["tiny"]


@pytest.mark.parametrize("work", [fetched, copied, converted])
def test_links_planted_during_runs_lead_nowhere(hub: Hub, models: Path, outside: Path, work: Any) -> None:
    with attacked(models, outside):
        while not any(path.name.startswith("aside") for path in models.iterdir()):
            pass  # until it is at work
        for _ in range(60):
            with suppress(*REFUSALS):
                work(hub, models)
    for name in NAMES:
        discard(models / name)
    work(hub, models)  # nothing is left that keeps an honest run from its end
    assert (models / "tiny" / store.MANIFEST).is_file()


def link_out(outside: Path) -> Callable[[Path], None]:
    return lambda place: place.symlink_to(outside / "inner")


def link_to_a_file(outside: Path) -> Callable[[Path], None]:
    return lambda place: place.symlink_to(outside / "secret")


def link_inside(outside: Path) -> Callable[[Path], None]:
    def output(place: Path) -> None:
        write_output(place)
        (place / "more/link").symlink_to(outside / "secret")

    return output


def second_name(_outside: Path) -> Callable[[Path], None]:
    def output(place: Path) -> None:
        write_output(place)
        os.link(place / "model.bin", place.parent / "again")

    return output


def pipe(_outside: Path) -> Callable[[Path], None]:
    def output(place: Path) -> None:
        write_output(place)
        os.mkfifo(place / "pipe")

    return output


@pytest.mark.parametrize(
    ("made", "says"),
    [
        *((link_out, "a link, model"), (link_to_a_file, "a link, model"), (link_inside, "a link, more/link")),
        *((second_name, "model.bin, which is no file of its own"), (pipe, "pipe, which is no file of its own")),
        (lambda _outside: lambda place: place.write_text("x"), "wrote nothing"),
        (lambda _outside: lambda place: place.mkdir(), "wrote nothing"),
        (lambda _outside: lambda _place: None, "wrote nothing"),
    ],
)
def test_what_a_conversion_may_not_leave_is_refused(
    hub: Hub, models: Path, outside: Path, made: Any, says: str
) -> None:
    with pytest.raises(StoreError, match=says):
        converted(hub, models, made(outside))
    assert not (models / "tiny").exists()


def test_a_file_that_somebody_writes_to_is_not_taken_over(models: Path) -> None:
    tree = models / "tree"
    tree.mkdir()
    with (tree / "file").open("w") as file:
        file.flush()
        with pytest.raises(NotOwnError, match="file, which somebody still writes to"):
            take_over(models, "tree", lambda *_found: None)
    seen: list[str] = []
    take_over(models, "tree", lambda name, _path: seen.append(name))
    assert seen == ["file"]


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o757])
def test_weights_that_another_user_can_write_to_are_not_verified_ones(hub: Hub, models: Path, mode: int) -> None:
    fetched(hub, models)
    assert not read_stored(of_the_hub(hub, models)).reason
    (models / "tiny").chmod(mode)
    assert "can be written to by another user" in read_stored(of_the_hub(hub, models)).reason
    fetched(hub, models)
    assert not read_stored(of_the_hub(hub, models)).reason


def test_nothing_is_made_where_something_is_only_looked_at(tmp_path: Path) -> None:
    assert Place(tmp_path / "no/such").stored is None
    assert list(tmp_path.iterdir()) == []


def test_an_environment_is_made_where_nobody_else_writes(tmp_path: Path) -> None:
    place = tmp_path / "engines"
    place.mkdir()
    place.chmod(0o777)
    wanted = Wanted(path=place / "engine", interpreter=Path(sys.executable), requirements="", sources=Sources())
    with pytest.raises(RuntimeSetupError, match="is writable for another user"):
        create(wanted)
    assert list(place.iterdir()) == []


@pytest.mark.parametrize(
    ("user", "owner", "mode", "own"),
    [
        (0, 0, 0o755, True),
        (1000, 1000, 0o755, True),
        (1000, 0, 0o755, True),  # an audit without root looks at what root made
        (0, 1000, 0o755, False),
        (1000, 1001, 0o755, False),
        (1000, 0, 0o775, False),
        (0, 0, 0o757, False),
    ],
)
def test_what_only_this_user_and_root_can_write_to_is_own(
    monkeypatch: pytest.MonkeyPatch, user: int, owner: int, mode: int, own: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert is_own(os.stat_result((stat.S_IFDIR | mode, 0, 0, 0, owner, 0, 0, 0, 0, 0))) is own
