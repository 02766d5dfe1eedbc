"""HTTP for weights: credentials stay with their host, pauses last as long as a server asks."""

from __future__ import annotations

import base64
import ipaddress
import json
import re
import time
import urllib.request
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPMessage
from typing import IO, Any, Optional
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit, urlunsplit

from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import user_info

TIMEOUT_SECONDS = 60
#: How often a request is repeated that may succeed a little later.
ATTEMPTS = 5
#: Longest single pause in seconds; hubs count requests in windows of five minutes.
LONGEST_PAUSE = 310.0
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_SAID = 300


class FetchError(FleetError):
    """A download failed; the message names the source and the way out, never the token."""


class _KeepTokenAtHome(urllib.request.HTTPRedirectHandler):
    """Follows redirects, and sends the token only to its own host, by https or as it began."""

    def __init__(self) -> None:
        #: The URL requested last, and the headers of the first redirect about the file behind it.
        self.last = ""
        self.linked: dict[str, str] = {}

    def redirect_request(  # noqa: PLR0917 - the signature is urllib's
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Optional[urllib.request.Request]:
        """Copy the token only to a redirect within the same host."""
        self.last = newurl
        self.linked = {**{name.lower(): value for name, value in headers.items()}, **self.linked}
        # 308 is 307 for good; urllib knows it from Python 3.11 on.
        new = super().redirect_request(req, fp, 307 if code == 308 else code, msg, headers, newurl)
        token = req.unredirected_hdrs.get("Authorization")
        old_parts, new_parts = urlsplit(req.full_url), urlsplit(newurl)
        if new is not None and token and (old_parts.scheme, old_parts.netloc) == (new_parts.scheme, new_parts.netloc):
            new.add_unredirected_header("Authorization", token)
        return new

    http_error_308 = urllib.request.HTTPRedirectHandler.http_error_302


class Client:
    """HTTP with an optional bearer token for one host, or with the user and password of a URL."""

    def __init__(self, token: str = "", *, plain_http: bool = False, notes: Optional[list[str]] = None) -> None:
        """Use TOKEN for every request that this client starts; PLAIN_HTTP allows it unencrypted.

        NOTES collects remarks for the operator that are no failures.
        """
        self._token = token
        self._plain_http = plain_http
        self._redirects = _KeepTokenAtHome()
        self._opener = urllib.request.build_opener(self._redirects)
        self.notes = [] if notes is None else notes

    def open(self, url: str, *, method: str = "GET", headers: Optional[Mapping[str, str]] = None) -> Any:
        """Open URL. Raises HTTPError, OSError or HTTPException, and FetchError if a secret would go unencrypted."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "file"):
            raise OSError(f"{hide_password(url)} is no http, https or file URL")
        info = user_info(url)
        if info:
            url = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
        credentials = f"Bearer {self._token}" if self._token else ""
        if not credentials and info:
            credentials = "Basic " + base64.b64encode(unquote(info).encode()).decode()
        request = urllib.request.Request(  # noqa: S310 - the scheme is checked above
            url, method=method, headers={"User-Agent": "xpu.fleet", "Accept-Encoding": "identity", **(headers or {})}
        )
        if credentials:
            if parts.scheme == "http" and not self._plain_http and not _on_this_machine(parts.hostname or ""):
                raise FetchError(
                    f"{parts.hostname} is asked by plain http, which exposes the token on the network: use https in "
                    "model_hub_endpoint, leave model_token empty, or set model_token_plain_http: true"
                )
            request.add_unredirected_header("Authorization", credentials)
        self._redirects.last, self._redirects.linked = url, {}
        return self._opener.open(request, timeout=TIMEOUT_SECONDS)

    @property
    def has_token(self) -> bool:
        """Whether it has a token."""
        return bool(self._token)

    @property
    def linked(self) -> Mapping[str, str]:
        """Headers, in lower case, of the redirects to the last answer; those of the first take precedence."""
        return self._redirects.linked

    def unreachable(self, url: str, error: Exception) -> str:
        """Say which host did not answer: that of URL, or the one that it redirects to."""
        first, last = urlsplit(url).netloc.rpartition("@")[2], urlsplit(self._redirects.last).netloc.rpartition("@")[2]
        reason = hide_password(str(getattr(error, "reason", "") or error or type(error).__name__))
        if last and last != first:
            return (
                f"{last}, to which {first} sends those who fetch {shown(url)}, cannot be reached ({reason}): allow "
                "that host in the firewall, or set xpu_proxy"
            )
        return f"{shown(url)} cannot be reached ({reason})"


def _on_this_machine(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def shown(url: str) -> str:
    """URL for a message: without user, password and query, which may be secrets."""
    return hide_password(re.sub(r"[?#].*", "", url, flags=re.DOTALL))


def said(error: HTTPError) -> str:
    """The server's message about its refusal, on one short line; "" without one."""
    text = str(error.headers.get("X-Error-Message") or "")
    if not text:
        try:
            answer = json.loads(error.read(10_000) or b"null")
            text = str(answer.get("error") or answer.get("message") or "") if isinstance(answer, dict) else ""
        except (OSError, HTTPException, ValueError):
            text = ""
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return hide_password(text if len(text) <= _SAID else f"{text[:_SAID]}...")


def status(error: HTTPError) -> str:
    """The status of a refusal and the server's message."""
    reason = " ".join(part for part in (str(error.code), str(error.reason or "")) if part)
    words = said(error)
    return f"{reason}: {words}" if words else reason


def asked_pause(headers: Any, now: float) -> Optional[float]:
    """Seconds that an answer asks to wait, None if it does not say.

    Retry-After is seconds or a date (RFC 9110, 10.2.3), relative to the answer's own Date; RateLimit has
    t=seconds (IETF draft ratelimit-headers).
    """
    value = str(headers.get("Retry-After") or "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d+)?", value):
        return float(value)
    until = _timestamp(value)
    if until is not None:
        since = _timestamp(str(headers.get("Date") or ""))
        return max(0.0, until - (now if since is None else since))
    match = re.search(r"(?:^|[;,\s])t=(\d{1,9})", str(headers.get("RateLimit") or ""))
    return float(match[1]) if match else None


def _timestamp(value: str) -> Optional[float]:
    try:
        found = parsedate_to_datetime(value)
    except (TypeError, ValueError, IndexError):  # which one depends on Python's version
        return None
    return (found if found.tzinfo else found.replace(tzinfo=timezone.utc)).timestamp()


def pause(error: Exception, attempt: int, url: str) -> Optional[float]:
    """Seconds to wait before URL is requested again after ERROR; None if repeating does not help.

    ATTEMPT counts from 0. Raises FetchError if the server asks for a longer pause than a run allows.
    """
    backoff = float(min(2 ** (attempt + 1), 20))
    if isinstance(error, HTTPError):
        if error.code not in _PASSING:
            return None
        now = time.time()
        asked = asked_pause(error.headers, now)
        if asked is not None and asked > LONGEST_PAUSE:
            until = datetime.fromtimestamp(min(now + asked, 4e9), timezone.utc)
            raise FetchError(
                f"{urlsplit(url).hostname} answered {error.code} {error.reason} and asks to wait until "
                f"{until:%Y-%m-%d %H:%M} UTC: run this again then, set model_token (known users have higher limits), "
                "or set model_hub_endpoint to a mirror"
            ) from error
        return backoff if asked is None else max(asked, 1.0)
    # urllib wraps errors from before the request is sent; they do not pass in seconds.
    return backoff if isinstance(error, (HTTPException, OSError)) and not isinstance(error, URLError) else None
