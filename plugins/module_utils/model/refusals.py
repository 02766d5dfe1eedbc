"""The meaning of a hub's refusals, and their remedies."""

from __future__ import annotations

import re
from urllib.error import HTTPError
from urllib.parse import urlsplit

from ansible_collections.xpu.fleet.plugins.module_utils.model.client import Client, said, shown, status


def gated_message(endpoint: str, repository: str) -> str:
    """The message for a repository that requires a token."""
    return (
        f"{repository} is gated: accept its licence at {shown(endpoint.rstrip('/'))}/{repository} and give a token "
        "that may read it in model_token, or point model_source at weights of your own"
    )


def circle(error: HTTPError, host: str) -> str:
    """The message for redirects that urllib refused: circular, without target, or not HTTP; "" for others."""
    if not 300 <= error.code < 400:
        return ""
    return (
        f"{host} answers with redirects (HTTP {error.code}) that lead in a circle or nowhere: look at the address in "
        "model_hub_endpoint or model_source (scheme, path of a mirror), and at a proxy that asks to log in"
    )


def refusal(client: Client, error: HTTPError, base: str, repository: str, revision: str) -> str:
    """The meaning of a hub's refusal and its remedy, by status, X-Error-Code and X-Error-Message.

    The hub does not reveal to strangers that a repository exists: a misspelt and a private one get the same
    401. Mirrors give no X-Error-Code.
    """
    code, words, status_code = str(error.headers.get("X-Error-Code") or ""), said(error), error.code
    hub, token = shown(base), client.has_token
    denied = status_code in (401, 403)
    if circle(error, f"the model hub {hub}"):
        return circle(error, f"the model hub {hub}")
    table = (
        (
            status_code == 451,
            f"the model hub {hub} does not offer {repository} for legal reasons, perhaps only in this country: choose "
            "other weights in model_source, or copy them yourself (path, controller_path)",
        ),
        (code == "GatedRepo" and (status_code == 401 or not token), gated_message(base, repository)),
        (
            code == "GatedRepo",
            f"{repository} is gated, and the account of model_token has not been granted access: accept its licence at "
            f"{hub}/{repository}, wait for approval if its owners require it, and allow the token to read gated "
            "repositories",
        ),
        (
            status_code == 401 and token and bool(re.search("(?i)credential|password|expired|token", words)),
            f"the model hub {hub} does not accept model_token, which is expired, revoked or mistyped: create a new "
            "one, or leave model_token empty for a public repository",
        ),
        (code == "RevisionNotFound", f"the model hub {hub} has no {repository} at revision {revision}"),
        (code == "EntryNotFound", f"the model hub {hub} has no such file in {repository}"),
        (
            code == "DisabledRepo" or "is disabled" in words,
            f"the model hub {hub} has disabled {repository}: choose other weights in model_source",
        ),
        (
            code == "RepoNotFound" or (status_code == 401 and not token),
            f"the model hub {hub} has no {repository} that {'model_token' if token else 'an anonymous user'} may read: "
            "its name is mistyped, it was removed, or it is private or gated, and model_token has to be of an account "
            "that may read it",
        ),
        (
            denied,
            f"the model hub {hub} refuses {repository}: model_token is expired or lacks the right to read it, or the "
            f"repository is gated and its licence not accepted at {hub}/{repository}, or a proxy or firewall refuses",
        ),
        (
            status_code == 404,
            f"the model hub {hub} has no {repository}{f' at revision {revision}' if revision else ''}",
        ),
        (status_code == 407, "the proxy requires a user and a password: set them in xpu_proxy"),
        (
            True,
            f"the model hub {hub} cannot serve {repository} now: try again later, or set model_hub_endpoint to a "
            "mirror",
        ),
    )
    meaning = next(text for holds, text in table if holds)
    return f"{meaning} (the hub answered {' '.join(filter(None, (str(status_code), str(error.reason))))}" + (
        f": {words})" if words else ")"
    )


def file_refusal(client: Client, error: HTTPError, url: str, endpoint: str, repository: str) -> str:
    """The refusal of a file: by the hub, or by a host that it redirects to, which knows no tokens."""
    first, refusing = (urlsplit(str(place)).netloc.rpartition("@")[2] for place in (url, error.url or url))
    if circle(error, refusing):
        return circle(error, f"{refusing}, asked for {shown(url)},")
    if refusing != first:
        return (
            f"{refusing}, to which {shown(url)} leads, refuses it with HTTP {status(error)}: let that host through "
            "the firewall or proxy too, or set model_hub_endpoint to a mirror"
        )
    if repository:
        return refusal(client, error, endpoint.rstrip("/"), repository, "")
    legal = " (unavailable for legal reasons: choose other weights in model_source)" if error.code == 451 else ""
    return f"{shown(url)} cannot be downloaded: HTTP {status(error)}{legal}"
