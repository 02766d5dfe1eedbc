"""Model weights from the Hugging Face hub or a mirror of it: its API, its refusals, and verified downloads."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, Optional, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from ansible_collections.xpu.fleet.plugins.module_utils.model.client import (
    ATTEMPTS,
    Client,
    FetchError,
    pause,
    shown,
    status,
)
from ansible_collections.xpu.fleet.plugins.module_utils.model.refusals import file_refusal, refusal
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import put_in_place

_CHUNK = 1024 * 1024
#: Largest answer that is read whole, in bytes: the hub's list of files, config.json, an index of shards.
_DOCUMENT = 64 * 1024 * 1024
_T = TypeVar("_T")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class RemoteFile:
    """A file to download. At most one of the digests is set; ``size`` is -1 if unknown before."""

    name: str
    url: str
    size: int
    sha256: str = ""
    git_sha1: str = ""

    @property
    def pinned(self) -> bool:
        """Whether it has a digest to verify."""
        return bool(self.sha256 or self.git_sha1)


def hub_files(client: Client, endpoint: str, repository: str, revision: str) -> tuple[str, list[RemoteFile]]:
    """The commit of REVISION, and its files. Raises FetchError."""
    base = endpoint.rstrip("/")
    url = f"{base}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    try:
        answer, reached = _api(client, url)
        commit = str(answer["sha"])
        # The names are validated when they are chosen: no path, no hidden file.
        now = _name_now(reached, repository)
        files = [_hub_file(base, now, commit, item) for item in answer["siblings"]]
    except HTTPError as error:
        raise FetchError(refusal(client, error, base, repository, revision)) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(
            f"{shown(url)} does not answer as a model hub: set model_hub_endpoint to the hub or a mirror with its API, "
            "or list the files with their digests in model_source.sha256, for which no API is needed"
        ) from error
    except (OSError, HTTPException) as error:
        raise FetchError(
            f"the model hub {shown(base)} cannot be reached: {client.unreachable(url, error)}: set model_hub_endpoint "
            "to a mirror, xpu_proxy to a proxy, or model_source to local weights"
        ) from error
    if not _COMMIT.fullmatch(commit) or (_COMMIT.fullmatch(revision) and commit != revision):
        raise FetchError(
            f"{shown(base)} answers with commit {commit[:60]!r} where {revision} of {repository} is asked for: this is "
            "not the pinned commit; use another model_hub_endpoint"
        )
    if now != repository:
        client.notes.append(f"{repository} is now called {now} on {shown(base)}: write that name in model_source")
    return commit, files


def listed_files(endpoint: str, repository: str, revision: str, sha256: Mapping[str, str]) -> list[RemoteFile]:
    """The files that the operator lists with their digests; no request is sent."""
    base = endpoint.rstrip("/")
    return [
        RemoteFile(name, f"{base}/{repository}/resolve/{quote(revision, safe='')}/{quote(name)}", -1, sha256=digest)
        for name, digest in sha256.items()
    ]


def _patiently(client: Client, url: str, take: Callable[[Any], _T], headers: Optional[Mapping[str, str]] = None) -> _T:
    """The result of TAKE for the answer of URL; repeated if that may help. Raises as Client.open does."""
    for attempt in range(ATTEMPTS):
        try:
            with client.open(url, headers=headers) as response:
                return take(response)
        except (HTTPException, OSError) as error:  # HTTPError is an OSError
            seconds = pause(error, attempt, url)
            if seconds is None or attempt + 1 == ATTEMPTS:
                raise
        time.sleep(seconds)
    raise AssertionError  # the last attempt returns or raises


def _api(client: Client, url: str) -> tuple[Any, str]:
    """The JSON of URL, and the URL after redirects."""

    def take(response: Any) -> tuple[Any, str]:
        reached = str(response.geturl())
        if url.startswith("https:") and not reached.startswith("https:"):
            raise ValueError(reached)  # it decides which digests are right
        return json.loads(response.read(_DOCUMENT)), reached

    return _patiently(client, url, take)


def _name_now(reached: str, repository: str) -> str:
    """The present name of a repository, from its last redirect: hubs redirect the former names of renamed ones."""
    match = re.search(r"/api/models/([\w.-]+/[\w.-]+)/revision/", urlsplit(reached).path)
    return match[1] if match else repository


def _hub_file(base: str, repository: str, commit: str, item: Mapping[str, Any]) -> RemoteFile:
    name = str(item["rfilename"])
    large = item.get("lfs") or {}
    size = large.get("size", item.get("size"))
    return RemoteFile(
        name=name,
        url=f"{base}/{repository}/resolve/{commit}/{quote(name)}",
        size=int(size) if size is not None else -1,
        sha256=_digest(large.get("sha256"), 64),
        git_sha1="" if large else _digest(item.get("blobId"), 40),
    )


def _digest(value: object, digits: int) -> str:
    text = str(value or "").strip('"').lower()
    return text if re.fullmatch(rf"[0-9a-f]{{{digits}}}", text) else ""


def probe(client: Client, file: RemoteFile, endpoint: str = "", repository: str = "") -> RemoteFile:
    """Request one byte of a file to check access to every host on the way. Returns the file with the answer's metadata.

    Signed URLs refuse HEAD, and a redirect says nothing about the host that it leads to. Raises FetchError.
    """

    def take(response: Any) -> RemoteFile:
        headers = {name.lower(): value for name, value in response.headers.items()}
        return _with_answer(file, headers, client.linked, partial=getattr(response, "status", 200) == 206)

    try:
        return _patiently(client, file.url, take, {"Range": "bytes=0-0"})
    except HTTPError as error:
        if error.code == 416:  # an empty file has no first byte
            return file
        raise FetchError(file_refusal(client, error, file.url, endpoint, repository)) from error
    except (HTTPException, OSError) as error:
        raise FetchError(client.unreachable(file.url, error)) from error


def _with_answer(
    file: RemoteFile, headers: Mapping[str, str], linked: Mapping[str, str], *, partial: bool
) -> RemoteFile:
    """FILE, completed by the size and the digest of an answer if the list of files lacks them.

    The hub's redirect has X-Linked-Size and X-Linked-ETag; its own ETags are a sha256, or git's digest of a small file.
    """
    length = headers.get("content-range", "").rpartition("/")[2] if partial else headers.get("content-length", "")
    size = linked.get("x-linked-size") or headers.get("x-linked-size") or length
    tag = linked.get("x-linked-etag") or headers.get("x-linked-etag") or headers.get("etag", "")
    known = replace(file, size=int(size)) if file.size < 0 and re.fullmatch(r"\d{1,18}", size) else file
    if known.pinned:
        return known
    return replace(known, sha256=_digest(tag, 64), git_sha1=_digest(tag, 40))


def check_access(client: Client, endpoint: str, repository: str, file: RemoteFile) -> None:
    """Request a byte of a file. Raises FetchError if the hub, or the host that it redirects to, would refuse it."""
    probe(client, file, endpoint, repository)


def complete(client: Client, files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """FILES with sizes and digests; missing ones are requested one by one. Raises FetchError."""
    found = [file if file.pinned else probe(client, file) for file in files]
    missing = [file.name for file in found if not file.pinned]
    if missing:
        raise FetchError(
            f"{shown(files[0].url).partition('/resolve/')[0]} gives no digest of "
            f"{', '.join(missing[:5])}{' and others' if len(missing) > 5 else ''}, so the download cannot be verified: "
            f"list the digests in model_source.sha256 ({{name: sha256}}), use another model_hub_endpoint, or bring the "
            "weights by path"
        )
    return found


def read_small(client: Client, endpoint: str, repository: str, file: RemoteFile) -> bytes:
    """The content of a small file needed for a decision; it is verified when it is downloaded. Raises FetchError."""
    try:
        return _patiently(client, file.url, lambda response: bytes(response.read(_DOCUMENT)))
    except HTTPError as error:
        raise FetchError(file_refusal(client, error, file.url, endpoint, repository)) from error
    except (OSError, HTTPException) as error:
        raise FetchError(client.unreachable(file.url, error)) from error


def sha256_file(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _git_sha1(path: Path) -> str:
    digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())  # noqa: S324 - git's own name of a small file
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(_CHUNK), b""):
            digest.update(chunk)
    return digest.hexdigest()


def _mismatch(file: RemoteFile, path: Path) -> str:
    """Why PATH is not FILE, "" if it is."""
    size = path.stat().st_size
    if file.size >= 0 and size != file.size:
        return f"it has {size} bytes instead of {file.size}"
    if file.sha256:
        found = sha256_file(path)
        return "" if found == file.sha256 else f"its sha256 is {found} instead of {file.sha256}"
    if file.git_sha1:
        found = _git_sha1(path)
        return "" if found == file.git_sha1 else f"its git digest is {found} instead of {file.git_sha1}"
    return "the source has no digest for it"


def download(client: Client, file: RemoteFile, destination: Path) -> None:
    """Download FILE to DESTINATION, continuing an earlier attempt, and verify it. Raises FetchError."""
    if destination.is_file() and not _mismatch(file, destination):
        return
    part = destination.with_name(f"{destination.name}.part")
    resumed = part.is_file() and part.stat().st_size > 0
    _fetch(client, file, part)
    wrong = _mismatch(file, part)
    if wrong and resumed:
        # A partial file of an earlier run may be of another file: start again, from the beginning.
        part.unlink()
        _fetch(client, file, part)
        wrong = _mismatch(file, part)
    if wrong:
        part.unlink()
        raise FetchError(f"{shown(file.url)} is not the pinned file: {wrong}; it was not kept")
    put_in_place(part, destination)


def _fetch(client: Client, file: RemoteFile, part: Path) -> None:
    """Append to PART until the server says that it is complete."""
    reason = ""
    seconds = 0.0
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(seconds)
        seconds = float(min(2 ** (attempt + 1), 20))
        before = part.stat().st_size if part.is_file() else 0
        if file.size >= 0 and before > file.size:
            part.unlink()
            before = 0
        if file.size >= 0 and before == file.size and before > 0:
            return
        try:
            if _transfer(client, file, part, before):
                return
            reason = "the connection ended early"
        except HTTPError as error:
            if error.code == 416:  # the partial file is not the beginning of the server's file
                part.unlink()
                continue
            asked = pause(error, attempt, file.url)
            if asked is None:
                raise FetchError(f"{shown(file.url)} cannot be downloaded: HTTP {status(error)}") from error
            seconds, reason = asked, f"HTTP {status(error)}"
        except (OSError, HTTPException) as error:
            reason = client.unreachable(file.url, error)
    raise FetchError(
        f"{shown(file.url)} cannot be downloaded: {reason} ({ATTEMPTS} attempts); the next run continues this download"
    )


def _transfer(client: Client, file: RemoteFile, part: Path, before: int) -> bool:
    """One request; whether everything that the server announced has arrived. Raises FetchError where it has no "
    "place."""
    headers = {"Range": f"bytes={before}-"} if before else {}
    with client.open(file.url, headers=headers) as response:
        going_on = before > 0 and getattr(response, "status", 200) == 206
        announced = response.headers.get("Content-Length")
        received = 0
        try:
            with part.open("ab" if going_on else "wb", buffering=0) as out:
                for chunk in _pieces(response):
                    _write(out, chunk)
                    received += len(chunk)
        except _BrokenOff as error:
            raise error.reason from error
        except OSError as error:
            # Waiting frees no space, and a full file system harms everything else on the node.
            written = part.stat().st_size if part.exists() else 0
            part.unlink(missing_ok=True)
            raise FetchError(_unstored(file, part.parent, written, error)) from error
    return announced is None or received >= int(announced)


class _BrokenOff(Exception):
    """Reading failed, not writing."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(str(reason))
        self.reason = reason


def _pieces(response: Any) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read(_CHUNK)
        except (OSError, HTTPException) as error:
            raise _BrokenOff(error) from error
        if not chunk:
            return
        yield chunk


def _write(out: IO[bytes], chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[out.write(view) :]


def _unstored(file: RemoteFile, place: Path, written: int, error: OSError) -> str:
    size = f"{written / 1e9:.1f} of {file.size / 1e9:.1f} GB" if file.size >= 0 else f"{written / 1e9:.1f} GB"
    after = "the incomplete file was removed; the next run keeps the complete ones"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"the file system of {place} is full after {size} of {file.name} ({error.strerror}): free space there, or "
            f"set model_directory to a larger file system; {after}"
        )
    return f"{file.name} cannot be written to {place} after {size} ({error.strerror or error}); {after}"


def total(files: Sequence[RemoteFile]) -> int:
    """Sum of the known sizes in bytes."""
    return sum(max(file.size, 0) for file in files)
