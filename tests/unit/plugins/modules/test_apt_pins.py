"""Pins are checked against a signed repository, with the real apt and a private state."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import (
    Change,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.sources import (
    Repository,
    SourceError,
)
from ansible_collections.xpu.fleet.plugins.module_utils.system.download import DownloadError
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError
from ansible_collections.xpu.fleet.plugins.modules import apt_pins
from ansible_collections.xpu.fleet.plugins.modules.apt_pins import PinError, check, is_set_up
from ansible_collections.xpu.fleet.tests.unit.plugins.support.aptrepo import SigningKey, make_repository

DRIVER = Change("xpu-test-driver", "", "1.0+i38-1")


class Node:
    """A vendor's mirror, and a node's configuration of apt."""

    def __init__(self, root: Path, key: SigningKey) -> None:
        self.etc, self.lists = root / "etc", root / "lists"
        for name in ("apt.conf.d", "sources.list.d", "preferences.d"):
            (self.etc / name).mkdir(parents=True)
        self.lists.mkdir()
        packages = [
            ("xpu-test-driver", "1.0+i38-1", "xpu-test-lib (= 2.0)"),
            ("xpu-test-driver", "1.1+i38-1", ""),
            ("xpu-test-lib", "2.0", ""),
            ("xpu-test-broken", "3.0", "xpu-test-nowhere"),
        ]
        uri = make_repository(root / "mirror", key, packages)
        (root / "mirror/vendor.key").write_bytes(key.armored)
        self.repository = Repository(
            uris=[uri],
            suites=["jammy"],
            components=["arc"],
            architectures=["amd64", "i386"],
            keyring=str(root / "keyrings/vendor.gpg"),
            sources=str(self.etc / "sources.list.d/vendor.sources"),
            key_url=f"{uri}/vendor.key",
            fingerprints=[key.fingerprint],
        )

    def check(self, *plan: Change, repository: Repository | None = None) -> list[str]:
        packages = {change.name: change.wanted for change in plan}
        outcome = check(packages, list(plan), [repository or self.repository], etc=self.etc, lists=self.lists)
        return list(outcome.removed)

    def changed(self, **values: object) -> Repository:
        return Repository(**{**vars(self.repository), **values})


@pytest.fixture(scope="session")
def mirrored(tmp_path_factory: pytest.TempPathFactory, vendor: SigningKey) -> Node:
    return Node(tmp_path_factory.mktemp("node"), vendor)


@pytest.fixture
def node(mirrored: Node) -> Node:
    for name in ("apt.conf.d", "sources.list.d"):
        for path in (mirrored.etc / name).iterdir():
            path.unlink()
    return mirrored


def test_pins_that_can_be_installed_pass_and_leave_no_trace(node: Node) -> None:
    assert node.check(DRIVER, Change("xpu-test-lib", "", "")) == []
    assert list(node.lists.iterdir()) == [] and list((node.etc / "sources.list.d").iterdir()) == []


def test_every_missing_pin_is_named_with_what_is_there(node: Node) -> None:
    with pytest.raises(PinError) as caught:
        node.check(DRIVER, Change("xpu-test-lib", "", "9.9"), Change("xpu-test-gone", "", "1"))
    message = str(caught.value)
    assert "xpu-test-lib=9.9: it has 2.0" in message
    assert "xpu-test-gone=1: no package of that name" in message
    assert "xpu-test-driver" not in message


def test_dependencies_that_cannot_be_met_are_found(node: Node) -> None:
    with pytest.raises(PinError, match=r"(?s)xpu-test-broken=3.0.*Depends: xpu-test-nowhere"):
        node.check(Change("xpu-test-broken", "", "3.0"))


def test_half_an_installation_is_no_reason_to_refuse(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apt_pins, "broken", lambda: ["an installation by dpkg was interrupted"])
    assert node.check(Change("xpu-test-broken", "", "3.0")) == []


def test_a_mirror_that_is_not_there_is_named(node: Node) -> None:
    with pytest.raises(PinError, match=r"(?s)cannot read every repository.*file:/nonexistent/ubuntu"):
        node.check(DRIVER, repository=node.changed(uris=["file:///nonexistent/ubuntu"]))


def test_a_key_url_that_is_not_there_is_named(node: Node) -> None:
    with pytest.raises(DownloadError, match=r"file:///nonexistent\.key cannot be read"):
        node.check(DRIVER, repository=node.changed(key_url="file:///nonexistent.key"))


def test_a_key_with_another_fingerprint_is_refused(node: Node, vendor: SigningKey, stranger: SigningKey) -> None:
    with pytest.raises(PinError, match=f"pinned {stranger.fingerprint}; found {vendor.fingerprint}"):
        node.check(DRIVER, repository=node.changed(fingerprints=[stranger.fingerprint]))


def test_a_repository_signed_by_another_key_is_refused(node: Node, stranger: SigningKey, tmp_path: Path) -> None:
    (tmp_path / "stranger.key").write_bytes(stranger.binary)
    other = node.changed(key_url=f"file://{tmp_path}/stranger.key", fingerprints=[stranger.fingerprint])
    with pytest.raises(PinError, match=r"(?s)cannot read every repository.*NO_PUBKEY"):
        node.check(DRIVER, repository=other)


def test_an_old_source_of_the_same_place_with_another_keyring_is_left_out(node: Node) -> None:
    old = node.etc / "sources.list.d/guide.list"
    old.write_text(f"deb [signed-by=/nonexistent.gpg] {node.repository.uris[0]} jammy arc\n")
    assert node.check(DRIVER) == []
    assert old.exists()


def test_the_nodes_own_sources_are_read_too(node: Node) -> None:
    (node.etc / "sources.list.d/own.list").write_text("deb [trusted=yes] file:///nonexistent/own ./\n")
    with pytest.raises(PinError, match="file:/nonexistent/own"):
        node.check(DRIVER)


def test_hooks_of_an_update_do_not_run(node: Node, tmp_path: Path) -> None:
    names = ("Pre-Invoke", "Post-Invoke", "Post-Invoke-Success")
    hooks = "".join(f'APT::Update::{name} {{"touch {tmp_path}/{name}";}};\n' for name in names)
    (node.etc / "apt.conf.d/50hooks").write_text(hooks)
    node.check(DRIVER)
    assert list(tmp_path.iterdir()) == []


def test_the_nodes_configuration_is_read_but_for_an_earlier_proxy(node: Node) -> None:
    unreadable = "Acquire { this never ends"
    (node.etc / "apt.conf.d/51xpu-fleet-proxy").write_text(unreadable)
    node.check(DRIVER)
    (node.etc / "apt.conf.d/50local").write_text(unreadable)
    with pytest.raises(FleetError, match="50local"):
        node.check(DRIVER)


def test_a_repository_is_set_up_only_as_described(node: Node, vendor: SigningKey, stranger: SigningKey) -> None:
    keyring, sources = Path(node.repository.keyring), Path(node.repository.sources)
    assert not is_set_up(node.repository, node.etc)
    keyring.parent.mkdir(exist_ok=True)
    keyring.write_bytes(vendor.binary)
    sources.write_text("# by Ansible\n" + node.repository.stanza())
    assert is_set_up(node.repository, node.etc)
    assert not is_set_up(node.changed(suites=["noble"]), node.etc)
    assert not is_set_up(node.changed(fingerprints=[stranger.fingerprint]), node.etc)
    keyring.write_bytes(vendor.binary + stranger.binary)
    assert not is_set_up(node.repository, node.etc)


def test_a_mixed_file_that_contradicts_is_an_error_of_its_own(node: Node) -> None:
    mixed = f"deb {node.repository.uris[0]} jammy arc\ndeb http://else.example.com jammy main\n"
    (node.etc / "sources.list.d/mixed.list").write_text(mixed)
    with pytest.raises(SourceError, match=r"mixed\.list"):
        node.check(DRIVER)
