"""The keyring module writes pinned keys only, and says why where it cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
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
