"""When an OpenPGP key expires: vendors extend keys by new signatures, which an older copy lacks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ansible_collections.xpu.fleet.plugins.module_utils.packages.openpgp import Packet, packets

_TAG_SIGNATURE = 2
_TAG_PUBLIC_KEY = 6
_TAG_PUBLIC_SUBKEY = 14
#: Types of signatures by which a key describes itself, or binds a subkey (RFC 9580, 5.2.1).
_OF_KEYS = (0x10, 0x11, 0x12, 0x13, 0x18, 0x1F)
#: Subpackets (5.2.3.7): creation time, the key's lifetime, issuer, the key's usage.
_MADE, _LIFETIME, _ISSUER, _FLAGS, _ISSUER_FINGERPRINT = 2, 9, 16, 27, 33
_MAY_SIGN = 0x02


@dataclass
class _Part:
    """A primary key or a subkey; its newest signature counts."""

    made: int
    said: int = -1
    lifetime: int = 0
    flags: int = _MAY_SIGN
    subpackets: dict[int, bytes] = field(default_factory=dict)

    def lives(self, now: float) -> bool:
        return not self.lifetime or now < self.made + self.lifetime


def has_expired(key: bytes, now: float) -> bool:
    """Tell whether a public key can verify nothing any more: it, or every part of it that may sign, has expired.

    Only versions 4 and later are read. Signatures are not verified: that is apt's task.
    """
    parts = _parts(key)
    if not parts:
        return False
    signers = [part for part in parts if part.flags & _MAY_SIGN]
    return not parts[0].lives(now) or (bool(signers) and not any(part.lives(now) for part in signers))


def _parts(key: bytes) -> list[_Part]:
    parts: list[_Part] = []
    own_id = b""
    for packet in packets(key):
        if packet.tag in (_TAG_PUBLIC_KEY, _TAG_PUBLIC_SUBKEY):
            parts.append(_Part(int.from_bytes(packet.body[1:5], "big")))
            own_id = own_id or packet.key_id
        elif packet.tag == _TAG_SIGNATURE and parts:
            _read_signature(packet, parts[-1], own_id)
    return parts


def _read_signature(packet: Packet, part: _Part, own_id: bytes) -> None:
    body = packet.body
    if len(body) < 6 or body[0] != 4 or body[1] not in _OF_KEYS:
        return
    end = 6 + int.from_bytes(body[4:6], "big")
    said = dict(_subpackets(body[6:end]))
    unhashed = dict(_subpackets(body[end + 2 : end + 2 + int.from_bytes(body[end : end + 2], "big")]))
    issuer = said.get(_ISSUER_FINGERPRINT, b"")[-8:] or said.get(_ISSUER) or unhashed.get(_ISSUER, b"")
    made = int.from_bytes(said.get(_MADE, b""), "big")
    # Third parties' signatures do not count.
    if issuer not in (own_id, b"") or made < part.said:
        return
    part.said = made
    part.lifetime = int.from_bytes(said.get(_LIFETIME, b""), "big")
    part.flags = said[_FLAGS][0] if said.get(_FLAGS) else _MAY_SIGN


def _subpackets(area: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position < len(area):
        first = area[position]
        if first < 192:
            length, position = first, position + 1
        elif first < 255:
            length, position = (
                ((first - 192) << 8) + int.from_bytes(area[position + 1 : position + 2], "big") + 192,
                position + 2,
            )
        else:
            length, position = int.from_bytes(area[position + 1 : position + 5], "big"), position + 5
        content = area[position : position + length]
        if content:
            yield content[0] & 0x7F, content[1:]
        position += length
        if not length:
            return
