"""The keyring module writes only pinned keys, and says why if it cannot."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.packages.key_lifetime import has_expired
from ansible_collections.xpu.fleet.tests.unit.plugins.support.aptrepo import SigningKey
from ansible_collections.xpu.fleet.tests.unit.plugins.support.module_run import run_module


@pytest.fixture
def options(tmp_path: Path, vendor: SigningKey, stranger: SigningKey) -> dict[str, Any]:
    (tmp_path / "vendor.key").write_bytes(vendor.armored + stranger.armored)
    return {
        "url": f"file://{tmp_path}/vendor.key",
        "fingerprints": [vendor.fingerprint],
        "dest": str(tmp_path / "keyrings/vendor.gpg"),
        "directory": str(tmp_path / "found"),
    }


def test_pinned_keys_are_written_readable_for_all_and_then_left_alone(
    options: dict[str, Any], vendor: SigningKey
) -> None:
    dest = Path(options["dest"])
    foreseen = run_module("apt_keyring", check=True, **options)
    assert foreseen["changed"] and not dest.exists()
    assert foreseen["diff"]["after"] == f"{vendor.fingerprint}\n"
    assert run_module("apt_keyring", **options)["changed"]
    assert dest.read_bytes() == vendor.binary
    assert dest.stat().st_mode & 0o777 == 0o644
    assert not run_module("apt_keyring", **options)["changed"]


def test_a_keyring_that_users_cannot_read_is_mended(options: dict[str, Any]) -> None:
    dest = Path(options["dest"])
    run_module("apt_keyring", **options)
    dest.chmod(0o600)
    assert run_module("apt_keyring", check=True, **options)["changed"]
    assert run_module("apt_keyring", **options)["changed"]
    assert dest.stat().st_mode & 0o777 == 0o644


def test_a_key_that_is_not_pinned_is_taken_out_again(
    options: dict[str, Any], vendor: SigningKey, stranger: SigningKey
) -> None:
    dest = Path(options["dest"])
    dest.parent.mkdir()
    dest.write_bytes(vendor.binary + stranger.binary)
    assert run_module("apt_keyring", **options)["changed"]
    assert dest.read_bytes() == vendor.binary


def test_a_complete_keyring_is_not_downloaded_again_unless_forced(options: dict[str, Any]) -> None:
    run_module("apt_keyring", **options)
    options["url"] = "file:///nonexistent/vendor.key"
    assert not run_module("apt_keyring", **options)["changed"]
    assert "file:///nonexistent/vendor.key cannot be read" in run_module("apt_keyring", force=True, **options)["msg"]


def test_a_key_that_is_in_the_file_twice_is_downloaded_once(options: dict[str, Any], vendor: SigningKey) -> None:
    twice = Path(options["dest"]).with_name("twice.asc")
    twice.parent.mkdir(exist_ok=True)
    twice.write_bytes(vendor.armored + vendor.armored)
    options["url"] = twice.as_uri()
    assert run_module("apt_keyring", **options)["changed"]
    twice.unlink()
    result = run_module("apt_keyring", **options)
    assert not result.get("failed") and not result["changed"]


def test_another_fingerprint_is_an_error_and_writes_nothing(options: dict[str, Any], vendor: SigningKey) -> None:
    options["fingerprints"] = ["0" * 40]
    result = run_module("apt_keyring", **options)
    assert result["failed"]
    assert options["url"] in result["msg"] and "0" * 40 in result["msg"] and vendor.fingerprint in result["msg"]
    assert not Path(options["dest"]).exists()


def test_an_unreachable_url_is_named_without_its_password(options: dict[str, Any]) -> None:
    options["url"] = "http://user:secret@127.0.0.1:9/vendor.key"
    result = run_module("apt_keyring", **options)
    assert "127.0.0.1:9/vendor.key cannot be read" in result["msg"]
    assert "secret" not in result["msg"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda binary, armored: armored,
        lambda binary, armored: armored.replace(b"\n", b"\r\n"),
        lambda binary, armored: b"fetched by hand\n" + armored,
        lambda binary, armored: binary + armored,
        lambda binary, armored: b"\xef\xbb\xbf" + armored,
        lambda binary, armored: base64.b64encode(binary),
        lambda binary, armored: binary + b"\n",
        lambda binary, armored: binary[:-10],
    ],
)
def test_a_keyring_that_apt_cannot_read_is_written_anew(
    options: dict[str, Any], vendor: SigningKey, spoil: Any
) -> None:
    dest = Path(options["dest"])
    dest.parent.mkdir()
    dest.write_bytes(spoil(vendor.binary, vendor.armored))
    assert run_module("apt_keyring", check=True, **options)["changed"]
    assert run_module("apt_keyring", **options)["changed"]
    assert dest.read_bytes() == vendor.binary
    assert not run_module("apt_keyring", **options)["changed"]


@pytest.fixture
def extended(tmp_path: Path) -> tuple[SigningKey, bytes]:
    """A key whose owner extended it, and a copy from before, which has expired since."""
    key = SigningKey(
        tmp_path / "extended", "extended <e@example.com>", "--faked-system-time", "20200101T000000", expires="1y"
    )
    return key, key.binary


@pytest.mark.parametrize("until", ["0", "50y", "2099-01-01"])
def test_an_expired_copy_of_an_extended_key_is_fetched_anew(
    options: dict[str, Any], extended: tuple[SigningKey, bytes], until: str
) -> None:
    key, old = extended
    dest, url = Path(options["dest"]), Path(options["url"].removeprefix("file://"))
    dest.parent.mkdir()
    dest.write_bytes(old)
    options["fingerprints"] = [key.fingerprint]
    url.write_bytes(old)
    failed = run_module("apt_keyring", **options)
    assert failed["failed"] and f"key {key.fingerprint} has expired" in failed["msg"]
    url.write_bytes(key.extend(until))
    assert run_module("apt_keyring", **options)["changed"]
    assert dest.read_bytes() == url.read_bytes() != old
    assert not run_module("apt_keyring", **options)["changed"]


def test_a_key_lives_until_its_end(extended: tuple[SigningKey, bytes]) -> None:
    made, year = 1577836800, 365 * 86400
    assert not has_expired(extended[1], made + year - 60)
    assert has_expired(extended[1], made + year + 60)
    assert not has_expired(extended[0].extend("0"), 2**33)
