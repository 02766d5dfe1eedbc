"""Reads a small file from a URL; errors say what to do."""

from __future__ import annotations

import os
import re
import ssl
from http.client import HTTPException

from ansible.module_utils.urls import open_url
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError
from ansible_collections.xpu.fleet.plugins.module_utils.system.secrets import proxy_url

TIMEOUT_SECONDS = 30
_MAXIMUM_BYTES = 8 * 1024 * 1024


class DownloadError(FleetError):
    """The URL could not be read; the message names it and the reason."""


def use_proxy(proxy: str) -> None:
    """Send downloads of this process and its children through a proxy; an empty one leaves the environment alone.

    Raises SecretError if it is no proxy URL: libraries would print parts of it, even its password.
    """
    found = proxy_url(proxy)
    if found:
        for name in ("http_proxy", "https_proxy"):
            os.environ[name] = os.environ[name.upper()] = found


def hide_password(text: str) -> str:
    """Hide the user and password of every URL in a text."""
    return re.sub(r"(?<=://)[^/\s]+@", "***@", text)


def read_url(url: str) -> bytes:
    """Return the content behind an http, https or file URL, of at most 8 MiB.

    Raises DownloadError if it cannot be reached or is larger.
    """
    try:
        with open_url(url, timeout=TIMEOUT_SECONDS, http_agent="xpu.fleet") as response:
            content: bytes = response.read(_MAXIMUM_BYTES + 1)
    except (OSError, HTTPException, ssl.SSLError, ValueError) as error:
        raise DownloadError(f"{hide_password(url)} cannot be read: {hide_password(str(error))}") from error
    if len(content) > _MAXIMUM_BYTES:
        raise DownloadError(f"{hide_password(url)} is larger than {_MAXIMUM_BYTES // 1024**2} MiB")
    return content
