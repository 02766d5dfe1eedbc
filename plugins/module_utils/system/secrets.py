"""Secrets in a module's options: normalised, and kept out of the module's output."""

from __future__ import annotations

import base64
import json
import re
import sys
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Optional
from urllib.parse import quote, quote_plus, unquote

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: Shorter pieces are not hidden: that would make messages unreadable.
_SHORTEST = 3
_HIDDEN = "********"
_PROXY = re.compile(
    r"(?i)https?://(?:[^\s/@:?#]+(?::[^\s/@?#]*)?@)?(?:[^\s/@:?#\[\]]+|\[[0-9a-f:.]+\])(?::(?P<port>\d{1,5}))?/?"
)


class SecretError(FleetError):
    """A secret is malformed; the message names its variable, never the secret."""


def token(value: str, variable: str) -> str:
    """Return the token in VALUE for a header, without copied extras: line ends, quotes, ``Bearer``.

    Raises SecretError, naming VARIABLE, if the rest is not one word of visible ASCII.
    """
    found, before = value, ""
    while found != before:
        before = found
        found = re.sub(r"(?i)^(authorization\s*:\s*)?(bearer(\s+|$))?", "", found.strip().strip("\ufeff"))
        if len(found) > 1 and found[0] == found[-1] and found[0] in "\"'":
            found = found[1:-1]
    if found.startswith("$ANSIBLE_VAULT"):
        raise SecretError(f"{variable} is still encrypted: it holds the encrypted text of a vault")
    if not re.fullmatch(r"[!-~]*", found):
        raise SecretError(f"{variable} contains {_wrong(found)}: a token is one word of visible ASCII; set it again")
    return found


def _wrong(text: str) -> str:
    if re.search(r"[\r\n\u2028\u2029\x85]", text):
        return "a line break"
    if not text.isascii():
        return "a character that is not ASCII"
    return "a blank" if re.search(r"[ \t]", text) else "a control character"


def proxy_url(value: str) -> str:
    """Return the proxy in VALUE without copied extras. Raises SecretError if it is no proxy URL."""
    found = value.strip().strip("\ufeff\"'").strip()
    match = _PROXY.fullmatch(found)
    if found and (match is None or not 0 < int(match["port"] or 80) < 65536):
        raise SecretError(
            "the proxy (xpu_proxy, or the role's own variable) is malformed: write http://user:password@host:port, "
            "and in user and password characters such as @ : / # % and blanks as %40 %3A %2F %23 %25 %20"
        )
    return found


def forms(secret: str) -> set[str]:
    """Return the forms of SECRET in a message: whole, without its ends, escaped and encoded."""
    found = set()
    for text in (secret, secret.strip(), unquote(secret)):
        raw = text.encode("utf-8", "surrogateescape")
        found |= {text, repr(text)[1:-1], json.dumps(text)[1:-1], quote(text, safe=""), quote(text), quote_plus(text)}
        found |= {repr(raw)[2:-1], base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode(), raw.hex()}
    return {text for text in found | {text.rstrip("=") for text in found} if len(text) >= _SHORTEST}


def user_info(url: str) -> str:
    """Return the text before the host of a URL, "" for none; also if its characters should have been encoded."""
    rest = url.partition("://")[2] or url
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        return authority.rpartition("@")[0]
    # A password with one of / ? # in it: the apparent port is no number.
    broken = "@" in rest and re.search(r":(?!\d*$)", authority)
    return rest.rpartition("@")[0] if broken else ""


def _of_url(url: str) -> Iterator[str]:
    info = user_info(url)
    if info:
        user, colon, password = info.partition(":")
        yield from (info, unquote(info), password if colon else user)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


def hide_secrets(module: AnsibleModule) -> None:
    """Keep a module's secrets out of its result, and out of unexpected exceptions.

    Secrets are the values of options with no_log, and user and password of every URL in any option.
    ansible-core hides the former only verbatim; a message may have them escaped, or inside a header.
    """
    hidden: set[str] = set()
    for name, value in module.params.items():
        for text in _texts(value):
            pieces = list(_of_url(text)) if "@" in text else []
            if module.argument_spec[name].get("no_log"):
                pieces.append(text)
                if "://" not in text:
                    pieces += re.split(r"[\s\"']+", text)
            for piece in pieces:
                hidden |= forms(piece)
    hidden -= {"Bearer", "bearer", "Authorization:"}
    module.no_log_values.update(hidden)

    def told(kind: type[BaseException], error: BaseException, trace: Optional[TracebackType]) -> None:
        text = "".join(traceback.format_exception(kind, error, trace))
        for secret in sorted(module.no_log_values, key=len, reverse=True):
            text = text.replace(str(secret), _HIDDEN)
        sys.stderr.write(text)

    sys.excepthook = told
