"""Parses OpenPGP public key files, without gpg.

A bare node may lack gpg, or a home directory for it, and little of OpenPGP is needed: split a key
file into its keys and compute their fingerprints (RFC 4880, RFC 9580). Verifying signatures is apt's task.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

_TAG_SECRET_KEY = 5
_TAG_PUBLIC_KEY = 6
_TAG_SECRET_SUBKEY = 7

#: The largest length in the two bytes before a version 4 fingerprint's data (RFC 9580, 5.5.4.2).
_LARGEST_KEY = 0xFFFF

_VERSION_4 = 4

_ARMOR = re.compile(
    rb"-----BEGIN PGP (?P<kind>[A-Z ]+)-----[ \t]*\r?\n(?P<body>.*?)-----END PGP (?P=kind)-----", re.DOTALL
)


class KeyFileError(FleetError):
    """The data is no file of OpenPGP public keys; the message says what it is instead."""


class PublicKey(NamedTuple):
    """A primary key with all its packets."""

    fingerprint: str  # of the primary key, upper-case hexadecimal
    data: bytes  # its packets: the key, user ids, subkeys and signatures, unchanged


class Packet(NamedTuple):
    """An OpenPGP packet."""

    tag: int
    body: bytes
    data: bytes  # header and body

    @property
    def key_id(self) -> bytes:
        """The key id of a key packet."""
        fingerprint = bytes.fromhex(_fingerprint(self.body))
        return fingerprint[-8:] if self.body[0] == _VERSION_4 else fingerprint[:8]


def normalize_fingerprint(text: str) -> str:
    """Return a fingerprint as 40 (or 64) upper-case hexadecimal digits; raise KeyFileError for anything shorter.

    Key ids of 8 or 16 digits are refused: they can be forged.
    """
    digits = re.sub(r"[\s:]", "", text).upper()
    if digits.startswith("0X"):
        digits = digits[2:]
    if not re.fullmatch(r"[0-9A-F]{40}|[0-9A-F]{64}", digits):
        raise KeyFileError(f"'{text}' is not a key fingerprint: 40 or 64 hexadecimal digits are required")
    return digits


def public_keys(data: bytes) -> list[PublicKey]:
    """Return the keys of a binary or armored key file, in order.

    Raises KeyFileError if the file is something else, is truncated, or holds a secret key.
    """
    return _keys(_dearmor(data))


def _keys(data: bytes) -> list[PublicKey]:
    keys: list[tuple[str, list[bytes]]] = []
    for packet in packets(data):
        if packet.tag in (_TAG_SECRET_KEY, _TAG_SECRET_SUBKEY):
            raise KeyFileError("the file holds a secret key; a repository's key file holds public keys only")
        if packet.tag == _TAG_PUBLIC_KEY:
            keys.append((_fingerprint(packet.body), [packet.data]))
        elif keys:
            keys[-1][1].append(packet.data)
        else:
            raise KeyFileError(f"the file does not start with a public key (OpenPGP packet type {packet.tag})")
    if not keys:
        raise KeyFileError("the file is empty")
    return [PublicKey(fingerprint, b"".join(packets)) for fingerprint, packets in keys]


def select_keys(data: bytes, fingerprints: list[str]) -> bytes:
    """Return a binary keyring with the keys of a key file whose primary fingerprint is pinned.

    Raises KeyFileError, naming pinned and found fingerprints, if the file holds none of them.
    """
    pinned = [normalize_fingerprint(fingerprint) for fingerprint in fingerprints]
    found = public_keys(data)
    keyring = b"".join(key.data for key in found if key.fingerprint in pinned)
    if not keyring:
        raise KeyFileError(
            f"no key in it has a pinned fingerprint: pinned {', '.join(pinned) or 'none'};"
            f" found {', '.join(key.fingerprint for key in found)}"
        )
    return keyring


def _dearmor(data: bytes) -> bytes:
    blocks = list(_ARMOR.finditer(data))
    if not blocks:
        if b"-----BEGIN PGP " in data.replace(b"\0", b"") and b"-----BEGIN PGP " not in data:
            raise KeyFileError("the armored key is text in UTF-16 (from Windows): save it as ASCII or UTF-8")
        if data[:1] and data[0] & 0x80:
            return data
        if b"-----BEGIN PGP " in data:
            raise KeyFileError("the armored block is incomplete: its last line is missing")
        start = data[:60].decode("utf-8", "replace").strip()
        raise KeyFileError(f"not an OpenPGP key file; it starts with {start!r}")
    return b"".join(_decode_block(block) for block in blocks)


def _decode_block(block: re.Match[bytes]) -> bytes:
    kind = block["kind"].decode()
    if kind != "PUBLIC KEY BLOCK":
        raise KeyFileError(f"the file holds a PGP {kind}, not public keys")
    lines = [line.strip() for line in block["body"].splitlines()]
    # Armor headers ("Version: ...") end at the first empty line; a checksum line starts with "=".
    text = lines[lines.index(b"") + 1 :] if b"" in lines else lines
    try:
        return base64.b64decode(b"".join(line for line in text if not line.startswith(b"=")), validate=True)
    except binascii.Error as error:
        raise KeyFileError(f"the armored block is damaged: {error}") from error


def packets(data: bytes) -> Iterator[Packet]:
    """Yield the packets of a binary file. Raises KeyFileError if it has none, or is truncated."""
    position = 0
    while position < len(data):
        start = position
        header = data[position]
        if not header & 0x80:
            raise KeyFileError(f"damaged key file: no OpenPGP packet at byte {position}")
        if header & 0x40:
            tag, (length, position) = header & 0x3F, _new_length(data, position + 1)
        else:
            tag, (length, position) = (header >> 2) & 0x0F, _old_length(data, position + 1, header & 3)
        end = position + length
        if end > len(data):
            raise KeyFileError("the key file is incomplete")
        yield Packet(tag, data[position:end], data[start:end])
        position = end


def _old_length(data: bytes, position: int, length_type: int) -> tuple[int, int]:
    """Return body length and position of an old-format packet."""
    if length_type == 3:
        return len(data) - position, position
    size = 1 << length_type
    return _number(data, position, size), position + size


def _new_length(data: bytes, position: int) -> tuple[int, int]:
    """Return body length and position of a new-format packet."""
    first = _number(data, position, 1)
    if first < 192:
        return first, position + 1
    if first < 224:
        return ((first - 192) << 8) + _number(data, position + 1, 1) + 192, position + 2
    if first == 255:
        return _number(data, position + 1, 4), position + 5
    raise KeyFileError("a key packet of partial length, which OpenPGP does not allow")


def _number(data: bytes, position: int, size: int) -> int:
    if position + size > len(data):
        raise KeyFileError("the key file is incomplete")
    return int.from_bytes(data[position : position + size], "big")


def _fingerprint(body: bytes) -> str:
    version = body[0] if body else 0
    if version == _VERSION_4:
        if len(body) > _LARGEST_KEY:
            raise KeyFileError(f"a public key of {len(body)} bytes, more than {_LARGEST_KEY}: the key file is damaged")
        # A version 4 fingerprint is defined as SHA-1; it is not a signature here.
        return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False).hexdigest().upper()
    if version in (5, 6):
        prefix = b"\x9a" if version == 5 else b"\x9b"
        return hashlib.sha256(prefix + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    raise KeyFileError(f"a public key of OpenPGP version {version}, which apt does not trust")


def keyring_keys(data: bytes) -> list[PublicKey]:
    """Return the keys of an installed keyring as apt reads it: none if it is empty, damaged or wrongly named.

    apt takes the format from the name: it reads armor only from a name with .asc.
    """
    try:
        return _keys(data)
    except KeyFileError:
        return []


def keyring_fingerprints(data: bytes) -> list[str]:
    """Return the primary fingerprints of an installed keyring."""
    return [key.fingerprint for key in keyring_keys(data)]
