"""Whether sources of downloads answer, checked before any change."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError

from ansible.module_utils.urls import open_url
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import hide_password

TIMEOUT_SECONDS = 20


def problem(source: str) -> str:
    """Why SOURCE, a URL or a path of this node, cannot be read; "" if it can."""
    shown = hide_password(source)
    if "://" not in source:
        return "" if Path(source).exists() else f"{shown}: the path does not exist on the node"
    answer = _ask(source, "HEAD")
    if answer.startswith(("HTTP 403", "HTTP 405", "HTTP 501")):
        answer = _ask(source, "GET")  # some mirrors do not answer HEAD
    return f"{shown}: {hide_password(answer)}" if answer else ""


def _ask(url: str, method: str) -> str:
    try:
        with open_url(url, method=method, timeout=TIMEOUT_SECONDS, http_agent="xpu.fleet"):
            return ""
    except HTTPError as error:
        return f"HTTP {error.code} {error.reason}"
    except (OSError, HTTPException, ssl.SSLError, ValueError) as error:
        return str(getattr(error, "reason", "") or error)


def problems(sources: Iterable[str]) -> list[str]:
    """Problems of all sources that have one, in order."""
    return [found for found in map(problem, sources) if found]
