"""Downloads of model weights: HTTP with resume and verification, and the API of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import re
import time
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.client import HTTPException, HTTPMessage
from pathlib import Path
from typing import IO, Any, Optional
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import put_in_place
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

TIMEOUT_SECONDS = 60
_ATTEMPTS = 5
_CHUNK = 1024 * 1024


class FetchError(FleetError):
    """A download failed; the message names the source and the way out, never the token."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to download. Exactly one of the digests is set; ``size`` is -1 where it is not known before."""

    name: str
    url: str
    size: int
    sha256: str = ""
    git_sha1: str = ""


class _KeepTokenAtHome(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and sends the token on only to the host it was meant for, by https or where it began."""

    def redirect_request(  # noqa: PLR0917 - the signature is urllib's
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Optional[urllib.request.Request]:
        """Copy the token only to a redirect within the same host."""
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        old_parts, new_parts = urlsplit(req.full_url), urlsplit(newurl)
        if new is not None and token and (old_parts.scheme, old_parts.netloc) == (new_parts.scheme, new_parts.netloc):
            new.add_unredirected_header("Authorization", token)
        return new


class Client:
    """HTTP with an optional bearer token for one host."""

    def __init__(self, token: str = "") -> None:
        """Use TOKEN for every request that this client starts; an empty one for none."""
        self._token = token
        self._opener = urllib.request.build_opener(_KeepTokenAtHome)

    def open(self, url: str, *, method: str = "GET", headers: Optional[Mapping[str, str]] = None) -> Any:
        """Open URL; raises HTTPError, OSError or HTTPException."""
        if urlsplit(url).scheme not in ("http", "https", "file"):
            raise OSError(f"{url} is no http, https or file URL")
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            url, method=method, headers={"User-Agent": "xpu.fleet", "Accept-Encoding": "identity", **(headers or {})}
        )
        if self._token:
            request.add_unredirected_header("Authorization", f"Bearer {self._token}")
        return self._opener.open(request, timeout=TIMEOUT_SECONDS)


def hub_files(client: Client, endpoint: str, repository: str, revision: str) -> tuple[str, list[RemoteFile]]:
    """The commit that REVISION stands for, and the files there. Raises FetchError."""
    base = endpoint.rstrip("/")
    url = f"{base}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    try:
        with client.open(url) as response:
            answer = json.load(response)
        commit = str(answer["sha"])
        files = [_hub_file(base, repository, commit, item) for item in answer["siblings"]]
    except HTTPError as error:
        raise FetchError(_refusal(error, base, repository, revision)) from error
    except (OSError, HTTPException) as error:
        raise FetchError(
            f"the model hub {hide_password(base)} cannot be reached ({error}): set model_hub_endpoint to a mirror, "
            "xpu_proxy to a proxy, or model_source to weights that are nearer"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise FetchError(f"{hide_password(url)} does not answer as a model hub does ({error!r})") from error
    return commit, files


def _hub_file(base: str, repository: str, commit: str, item: Mapping[str, Any]) -> RemoteFile:
    name = str(item["rfilename"])
    large = item.get("lfs") or {}
    return RemoteFile(
        name=name,
        url=f"{base}/{repository}/resolve/{commit}/{quote(name)}",
        size=int(large.get("size", item.get("size", -1))),
        sha256=str(large.get("sha256", "")),
        git_sha1="" if large else str(item.get("blobId", "")),
    )


def check_access(client: Client, endpoint: str, repository: str, file: RemoteFile) -> None:
    """Ask for a file without fetching it; raises FetchError where the hub would refuse it."""
    try:
        with client.open(file.url, method="HEAD"):
            return
    except HTTPError as error:
        raise FetchError(_refusal(error, endpoint.rstrip("/"), repository, "")) from error
    except (OSError, HTTPException) as error:
        raise FetchError(f"{hide_password(file.url)} cannot be reached ({error})") from error


def gated_message(endpoint: str, repository: str) -> str:
    """What to do about a repository that wants a token."""
    return (
        f"{repository} is gated: accept its licence at {hide_password(endpoint.rstrip('/'))}/{repository} and give a "
        "token that may read it in model_token, or point model_source at weights that you have"
    )


def _refusal(error: HTTPError, base: str, repository: str, revision: str) -> str:
    if error.code in (401, 403):
        return f"{gated_message(base, repository)} (the hub answered {error.code} {error.reason})"
    if error.code == 404:
        return f"the model hub {hide_password(base)} has no {repository}" + (
            f" at revision {revision}" if revision else ""
        )
    return f"the model hub {hide_password(base)} answered {error.code} {error.reason} for {repository}"


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
    """Why PATH is not FILE, "" when it is."""
    size = path.stat().st_size
    if file.size >= 0 and size != file.size:
        return f"it has {size} bytes, wanted are {file.size}"
    if file.sha256:
        found = sha256_file(path)
        return "" if found == file.sha256 else f"its sha256 is {found}, wanted is {file.sha256}"
    if file.git_sha1:
        found = _git_sha1(path)
        return "" if found == file.git_sha1 else f"its git digest is {found}, wanted is {file.git_sha1}"
    return "the source gives no digest to check it with"


def download(client: Client, file: RemoteFile, destination: Path) -> None:
    """Bring FILE to DESTINATION, going on where an earlier attempt stopped, and verify it. Raises FetchError."""
    if destination.is_file() and not _mismatch(file, destination):
        return
    part = destination.with_name(f"{destination.name}.part")
    resumed = part.is_file() and part.stat().st_size > 0
    _fetch(client, file, part)
    wrong = _mismatch(file, part)
    if wrong and resumed:
        # What an earlier run left may have been of another file: once more, from the beginning.
        part.unlink()
        _fetch(client, file, part)
        wrong = _mismatch(file, part)
    if wrong:
        part.unlink()
        raise FetchError(f"{hide_password(file.url)} is not what was pinned: {wrong}; nothing of it was kept")
    put_in_place(part, destination)


def _fetch(client: Client, file: RemoteFile, part: Path) -> None:
    """Append to PART until the server says that it is all there."""
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(min(2**attempt, 20))
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
            if error.code == 416:  # what is there is not a beginning of what the server has
                part.unlink()
                continue
            if error.code not in (408, 429) and error.code < 500:
                raise FetchError(
                    f"{hide_password(file.url)} cannot be downloaded: HTTP {error.code} {error.reason}"
                ) from error
            reason = f"HTTP {error.code} {error.reason}"
        except (OSError, HTTPException) as error:
            reason = str(error)
    raise FetchError(
        f"{hide_password(file.url)} cannot be downloaded: {reason} ({_ATTEMPTS} attempts); the next run goes on "
        "where this one stopped"
    )


def _transfer(client: Client, file: RemoteFile, part: Path, before: int) -> bool:
    """One request; whether everything that the server announced has arrived."""
    headers = {"Range": f"bytes={before}-"} if before else {}
    with client.open(file.url, headers=headers) as response:
        going_on = before > 0 and getattr(response, "status", 200) == 206
        announced = response.headers.get("Content-Length")
        received = 0
        with part.open("ab" if going_on else "wb") as out:
            while True:
                chunk = response.read(_CHUNK)
                if not chunk:
                    break
                out.write(chunk)
                received += len(chunk)
    return announced is None or received >= int(announced)


def remote_size(client: Client, url: str) -> int:
    """Bytes behind URL, -1 where the server does not say. Raises FetchError where there is nothing."""
    try:
        with client.open(url, method="HEAD") as response:
            length = response.headers.get("Content-Length")
            return int(length) if length and re.fullmatch(r"\d+", length) else -1
    except HTTPError as error:
        if error.code in (403, 405, 501):
            return -1
        raise FetchError(f"{hide_password(url)} cannot be downloaded: HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        raise FetchError(
            f"{hide_password(url)} cannot be reached ({error}): check model_source.url, or set xpu_proxy"
        ) from error


def total(files: Sequence[RemoteFile]) -> int:
    """Bytes of all files whose size is known."""
    return sum(max(file.size, 0) for file in files)
