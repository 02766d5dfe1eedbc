"""The service's certificate: its files are read at the start, and again after changes.

It needs only Python's own library: the command line connects to the service too.
"""

from __future__ import annotations

import ssl
import stat
from pathlib import Path
from typing import Optional

# OpenSSL's X509_V_FLAG_PARTIAL_CHAIN, which Python names from 3.10 on: it trusts a certificate of the file itself,
# whoever signed it.
_PARTIAL_CHAIN = 0x80000


class TLSError(Exception):
    """The certificate or its key cannot be used; the message names the file, never its content."""


class Certificate:
    """A certificate with its chain, and its key, as PEM files."""

    def __init__(self, certificate: Path, key: Path) -> None:
        """Read the files; raises TLSError."""
        self._certificate, self._key = certificate, key
        self._read = self._state()
        self.context = self._loaded()

    def reload(self) -> bool:
        """Read the files again if they have changed, and return whether; after a TLSError, the former ones stay.

        Open connections keep their certificate.
        """
        state = self._state()
        if state == self._read:
            return False
        self._read = state
        self._loaded()  # a key of another certificate would leave the context with half of both
        self._load_into(self.context)
        return True

    def _state(self) -> list[tuple[int, int]]:
        """The state of the files, to detect a change; empty for a missing file."""
        files = [file.stat() if file.exists() else None for file in (self._certificate, self._key)]
        return [(found.st_mtime_ns, found.st_ino) if found else (0, 0) for found in files]

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._load_into(context)
        return context

    def _load_into(self, context: ssl.SSLContext) -> None:
        for file in (self._certificate, self._key):
            try:
                file.open("rb").close()
            except OSError as error:
                raise TLSError(f"{file}: {error.strerror}") from None
        mode = stat.S_IMODE(self._key.stat().st_mode)
        if mode & (stat.S_IRWXO | stat.S_IWGRP):
            raise TLSError(f"{self._key}: mode {mode:04o} is too open: run chmod 600")
        try:
            context.load_cert_chain(self._certificate, self._key, password=_no_password)
        except ssl.SSLError as error:
            other = error.reason == "KEY_VALUES_MISMATCH"
            why = "the key does not match the certificate" if other else "not a certificate and a key in PEM"
            raise TLSError(f"{self._certificate}, {self._key}: {why}") from None
        except ValueError:
            raise TLSError(f"{self._key}: the key is encrypted: remove its password") from None


def trusting(file: Optional[Path] = None, *, named: bool = True) -> ssl.SSLContext:
    """The context of a client: it trusts the certificates of `file`, or else those of the system.

    Without `named`, the certificate may be for another name: that of a node, which asks itself at a loopback address.
    Raises TLSError.
    """
    try:
        context = ssl.create_default_context(cafile=file)
    except ssl.SSLError:
        raise TLSError(f"{file}: no PEM certificate") from None
    except OSError as error:
        raise TLSError(f"{file}: {error.strerror}") from None
    if file:
        context.verify_flags |= _PARTIAL_CHAIN
    context.check_hostname = named
    return context


def _no_password() -> str:
    raise ValueError
