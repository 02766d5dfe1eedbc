"""Key files are split into keys and fingerprints as gpg would, and damaged ones are refused."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.packages.openpgp import (
    KeyFileError,
    keyring_fingerprints,
    normalize_fingerprint,
    public_keys,
    select_keys,
)
from ansible_collections.xpu.fleet.tests.unit.plugins.support.aptrepo import SigningKey


def test_the_fingerprint_is_gpgs_own(vendor: SigningKey) -> None:
    assert [key.fingerprint for key in public_keys(vendor.binary)] == [vendor.fingerprint]


def test_an_armored_file_gives_the_same_packets(vendor: SigningKey) -> None:
    assert public_keys(vendor.armored) == public_keys(vendor.binary)


def test_only_pinned_keys_are_kept(vendor: SigningKey, stranger: SigningKey) -> None:
    assert select_keys(stranger.binary + vendor.binary, [vendor.fingerprint.lower()]) == vendor.binary
    both = select_keys(vendor.armored + stranger.armored, [stranger.fingerprint, vendor.fingerprint])
    assert both == vendor.binary + stranger.binary


def test_a_file_without_a_pinned_key_names_pinned_and_found(vendor: SigningKey, stranger: SigningKey) -> None:
    with pytest.raises(KeyFileError, match=f"pinned {vendor.fingerprint}; found {stranger.fingerprint}"):
        select_keys(stranger.binary, [vendor.fingerprint])


def test_a_file_cut_short_anywhere_is_refused_or_has_no_other_key(vendor: SigningKey) -> None:
    for length in range(1, len(vendor.binary)):
        assert keyring_fingerprints(vendor.binary[:length]) in ([], [vendor.fingerprint])
    with pytest.raises(KeyFileError, match="incomplete"):
        public_keys(vendor.binary[:20])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it starts with ''"),
        (b"<!DOCTYPE html><title>404</title>", "not an OpenPGP key file; it starts with '<!DOCTYPE"),
        (b"-----BEGIN PGP MESSAGE-----\n\nAAAA\n-----END PGP MESSAGE-----\n", "holds a PGP MESSAGE"),
        (b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nA*A\n-----END PGP PUBLIC KEY BLOCK-----\n", "block is damaged"),
        (b"\xc2\x01\x00", "does not start with a public key"),
        (b"\xc6\x01\x03", "OpenPGP version 3"),
        (b"\xc6\xe1\x00", "partial length"),
    ],
)
def test_other_files_are_refused_with_what_they_are(data: bytes, message: str) -> None:
    with pytest.raises(KeyFileError, match=message.replace("*", ".")):
        public_keys(data)


def test_an_armored_file_cut_short_is_told_from_other_files(vendor: SigningKey) -> None:
    with pytest.raises(KeyFileError, match="the armored block is incomplete"):
        public_keys(vendor.armored[:100])


def test_a_secret_key_is_refused(vendor: SigningKey) -> None:
    with pytest.raises(KeyFileError, match="secret key"):
        public_keys(vendor.secret())


@pytest.mark.parametrize("header", [b"\x98\x06", b"\x99\x00\x06", b"\x9a\x00\x00\x00\x06", b"\xc6\x06", b"\x9b"])
def test_every_form_of_packet_length_is_read(header: bytes) -> None:
    body = b"\x04\x00\x00\x00\x00\x01"
    (key,) = public_keys(header + body)
    assert key.fingerprint == hashlib.sha1(b"\x99\x00\x06" + body, usedforsecurity=False).hexdigest().upper()


def test_a_version_6_key_has_a_sha256_fingerprint() -> None:
    body = b"\x06" + bytes(9)
    (key,) = public_keys(b"\xc6\x0a" + body)
    assert key.fingerprint == hashlib.sha256(b"\x9b\x00\x00\x00\x0a" + body).hexdigest().upper()


def test_a_fingerprint_may_be_written_in_groups_but_not_be_a_short_key_id() -> None:
    assert normalize_fingerprint("0x" + "ab12 " * 10) == "AB12" * 10
    with pytest.raises(KeyFileError, match="'BAC6F0C353D04109' is not a key fingerprint"):
        normalize_fingerprint("BAC6F0C353D04109")


@pytest.mark.parametrize(
    "header",
    [
        b"\x9a" + (70_000).to_bytes(4, "big"),
        b"\xc6\xff" + (70_000).to_bytes(4, "big"),
        b"\x9b",
        b"\x98\x06\x04\x00\x00\x00\x00\x01\x9a" + (70_000).to_bytes(4, "big"),
    ],
)
def test_a_key_that_is_too_large_to_be_one_is_refused(header: bytes) -> None:
    data = header + b"\x04" * 70_000
    with pytest.raises(KeyFileError, match="a public key of 70000 bytes, more than 65535: the key file is damaged"):
        public_keys(data)
    with pytest.raises(KeyFileError, match="the key file is damaged"):
        select_keys(data, ["0" * 40])
    assert keyring_fingerprints(data) == []


def test_a_key_of_very_many_packets_is_read_in_one_go() -> None:
    key = b"\x98\x06\x04\x00\x00\x00\x00\x01"
    (found,) = public_keys(key + b"\xcd\x00" * 1_000_000)
    assert len(found.data) == 8 + 2_000_000


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_an_armored_file_in_utf_16_is_told_as_such(vendor: SigningKey, encoding: str) -> None:
    with pytest.raises(KeyFileError, match="text in UTF-16"):
        public_keys(vendor.armored.decode().encode(encoding))
