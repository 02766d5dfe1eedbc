"""Removes names of people, machines and networks, and secrets, from a report."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Any

#: The order matters: patterns that contain others come first.
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"-----BEGIN [A-Z ]+-----.*?(?:-----END [A-Z ]+-----|\Z)", re.DOTALL), "[key]"),
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)[^\s/@]*@", re.IGNORECASE), r"\1[credentials]@"),
    (re.compile(r"\b([a-z][a-z0-9+.-]*://)(?!\[credentials\]@?/?$)[^\s/\"']+", re.IGNORECASE), r"\1[host]"),
    (re.compile(r"\b[\w.+-]+@[\w-]+\.[\w.-]+"), "[address]"),
    (re.compile(r"\b(?:hf|sk|pk|ghp|gho|ghs|glpat|xox[abp]|eyJ)[_-]?[A-Za-z0-9_.=-]{12,}"), "[token]"),
    (re.compile(r"(\bbearer\s+)\S+", re.IGNORECASE), r"\1[token]"),
    (
        re.compile(
            r"((?:api[_ -]?key|token|secret|pass(?:word|wd|phrase)?|authorization|credential)s?"
            r"[\"']?\s*[=:]\s*[\"']?)[^\s\"',}]+",
            re.IGNORECASE,
        ),
        r"\1[secret]",
    ),
    (
        re.compile(r"((?:serial(?:[ _-]?(?:number|no))?|s/n)[\"']?\s*[.=:#]*\s*[\"']?)[\w-]+", re.IGNORECASE),
        r"\1[serial]",
    ),
    (re.compile(r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b", re.IGNORECASE), "[uuid]"),
    (re.compile(r"(\buuid\b[^\w\n]*)[0-9a-f-]{8,}", re.IGNORECASE), r"\1[uuid]"),
    (re.compile(r"\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}\b", re.IGNORECASE), "[mac]"),
    (re.compile(r"(/home/|/Users/)[^/\s\"']+"), r"\1[user]"),
    (re.compile(r"\b(?=[A-Za-z0-9+/_-]*\d)(?=[A-Za-z0-9+/_-]*[A-Za-z])[A-Za-z0-9+/_-]{32,}={0,2}"), "[long text]"),
)
_ADDRESS = re.compile(
    r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}(?![\w.])|[0-9a-f]*:[0-9a-f:.]*:[0-9a-f.]*)(?![\w:])", re.I
)
#: The form of a version: numbers and packagers' suffixes, no spaces.
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]{1,60}")
_VERSION = re.compile(r"[0-9][0-9A-Za-z.+:~-]{0,80}")


class Redactor:
    """Redacts text; known names of the node are removed everywhere."""

    def __init__(self, names: Iterable[str] = (), secrets: Iterable[str] = ()) -> None:
        """Take names of the machine and its people, and secrets such as the service's keys."""
        known = {name: "[name]" for name in names if len(name) > 2}
        known.update({secret: "[secret]" for secret in secrets if secret})
        self._known = [(text, known[text]) for text in sorted(known, key=len, reverse=True)]

    def text(self, text: str) -> str:
        """Return free text without private data."""
        for known, instead in self._known:
            text = re.sub(rf"(?<!\w){re.escape(known)}(?!\w)", instead, text, flags=re.IGNORECASE)
        for pattern, instead in _PATTERNS:
            text = pattern.sub(instead, text)
        return _ADDRESS.sub(lambda match: "[address]" if _is_address(match[0]) else match[0], text)

    def name(self, text: str) -> str:
        """Return a package's name unchanged, even if it equals a person's, and anything else redacted."""
        return text if _PACKAGE.fullmatch(text) else self.text(text)

    def version(self, text: str) -> str:
        """Return a version unchanged, even if it looks like an address, and anything else redacted."""
        return text if _VERSION.fullmatch(text) else self.text(text)

    def data(self, value: Any) -> Any:
        """Return plain data with all texts redacted, keys too; a mapping ``versions`` has versions."""
        if isinstance(value, dict):
            return {
                self.text(str(key)): (
                    {self.name(str(name)): self.version(str(version)) for name, version in part.items()}
                    if key in ("versions", "packages") and isinstance(part, dict)
                    else self.data(part)
                )
                for key, part in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self.data(part) for part in value]
        return self.text(value) if isinstance(value, str) else value


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not address.is_loopback and not address.is_unspecified
