"""Sources files are parsed in both formats, and sources in conflict with a repository are found."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from ansible_collections.xpu.fleet.plugins.module_utils.packages.apt import (
    Change,
    broken,
    changes,
    unknown,
)
from ansible_collections.xpu.fleet.plugins.module_utils.packages.sources import (
    Repository,
    Source,
    SourceError,
    files_to_edit,
    files_to_remove,
    parse_sources,
    source_files,
    without_own,
)

GRAPHICS = Repository(
    uris=["https://mirror.example.com/graphics/ubuntu"],
    suites=["jammy"],
    components=["arc"],
    architectures=["amd64", "i386"],
    keyring="/usr/share/keyrings/graphics.gpg",
    sources="/etc/apt/sources.list.d/graphics.sources",
    superseded=["/etc/apt/sources.list.d/old.list"],
)


def test_a_repository_is_written_as_deb822() -> None:
    assert GRAPHICS.stanza() == (
        "Types: deb\n"
        "URIs: https://mirror.example.com/graphics/ubuntu\n"
        "Suites: jammy\n"
        "Components: arc\n"
        "Architectures: amd64 i386\n"
        "Signed-By: /usr/share/keyrings/graphics.gpg\n"
    )


def test_what_is_written_is_read_back() -> None:
    assert parse_sources("graphics.sources", "# a comment\n" + GRAPHICS.stanza()) == [
        Source(GRAPHICS.uris[0], "jammy", GRAPHICS.keyring)
    ]


def test_one_line_sources() -> None:
    text = """
# deb http://commented.example.com jammy main
deb [arch=amd64,i386 signed-by=/k.gpg] https://a.example.com/ubuntu/ jammy arc
deb http://b.example.com jammy main universe  # a comment
deb-src [ trusted=yes ] http://c.example.com ./
not a source
"""
    assert parse_sources("x.list", text) == [
        Source("http://commented.example.com", "jammy", "", enabled=False),
        Source("https://a.example.com/ubuntu", "jammy", "/k.gpg"),
        Source("http://b.example.com", "jammy", ""),
        Source("http://c.example.com", "./", ""),
    ]


def test_deb822_stanzas_with_several_places_disabled_ones_and_an_embedded_key() -> None:
    text = """\
Types: deb
URIs: http://a.example.com http://b.example.com/
Suites: one
 two
# a comment
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 AAAA

Enabled: no
URIs: http://off.example.com
Suites: one
"""
    found = parse_sources("x.sources", text)
    assert [source for source in found if not source.enabled] == [
        Source("http://off.example.com", "one", "", enabled=False)
    ]
    assert [(source.uri, source.suite) for source in found if source.enabled] == [
        ("http://a.example.com", "one"),
        ("http://a.example.com", "two"),
        ("http://b.example.com", "one"),
        ("http://b.example.com", "two"),
    ]
    assert "BEGIN PGP" in found[0].signed_by


def test_only_files_that_apt_reads_count(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    for name in ("sources.list", "sources.list.d/a.list", "sources.list.d/b.sources", "sources.list.d/c.list.save"):
        (tmp_path / name).write_text("")
    assert [path.name for path in source_files(tmp_path)] == ["sources.list", "a.list", "b.sources"]


def entries(*signed_by: str, uri: str = GRAPHICS.uris[0]) -> list[Source]:
    return [Source(uri, "jammy", keyring) for keyring in signed_by]


def test_superseded_files_and_files_with_another_keyring_have_to_go() -> None:
    directory = Path("/etc/apt/sources.list.d")
    files = {
        directory / "old.list": entries(GRAPHICS.keyring),
        directory / "guide.list": entries("/usr/share/keyrings/other.gpg"),
        directory / "none.list": entries(""),
        directory / "same.list": entries(GRAPHICS.keyring),
        directory / "else.list": entries("/other.gpg", uri="https://else.example.com"),
        directory / "graphics.sources": entries("/earlier.gpg"),
    }
    gone = files_to_remove(GRAPHICS, files)
    assert [path.name for path in gone] == ["old.list", "guide.list", "none.list"]


def test_a_contradicting_file_with_further_sources_is_for_a_person() -> None:
    path = Path("/etc/apt/sources.list")
    mixed = {path: entries("/other.gpg") + entries("", uri="http://archive.example.com/ubuntu")}
    with pytest.raises(
        SourceError, match=re.escape("/etc/apt/sources.list names") + ".*http://archive.example.com/ubuntu"
    ):
        files_to_remove(GRAPHICS, mixed)


def test_a_repository_with_wrong_keys_is_an_error() -> None:
    with pytest.raises(SourceError, match="unknown key 'url', no 'uris', no 'suites', no 'keyring', no 'sources'"):
        Repository.from_mapping({"url": "x"})


def test_a_mirrors_password_is_in_no_error() -> None:
    secret = "https://user:pa55word@mirror.example.com"
    graphics = replace(GRAPHICS, uris=[secret])
    mixed = {Path("/etc/apt/sources.list"): entries("/other.gpg", uri=secret) + entries("", uri=f"{secret}/more")}
    with pytest.raises(SourceError) as refused:
        files_to_remove(graphics, mixed)
    with pytest.raises(SourceError) as unknown_key:
        Repository.from_mapping({"uris": [secret], "url": secret})
    for said in (str(refused.value), str(unknown_key.value)):
        assert "https://***@mirror.example.com" in said and "pa55word" not in said


def test_changes_and_unknown() -> None:
    plan = changes({"a": "1", "b": "2", "c": "", "d": "", "e": "5"}, {"a": "1", "b": "1", "c": "9"})
    assert plan == [Change("b", "1", "2"), Change("d", "", ""), Change("e", "", "5")]
    assert unknown(plan, {"b": ["3", "2"], "d": [], "e": ["6"]}) == [Change("d", "", ""), Change("e", "", "5")]


def test_a_journal_of_dpkg_is_half_an_installation(tmp_path: Path) -> None:
    assert not broken(tmp_path)
    (tmp_path / "0001").touch()
    assert broken(tmp_path)


ELSE = "https://download.example.org/else/ubuntu"
FORMER = replace(GRAPHICS, former=["https://mirror.example.com/old/"])


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        (
            "old.list",
            f"# ours\ndeb [arch=amd64] {GRAPHICS.uris[0]} jammy arc\n\n#else\ndeb {ELSE} jammy main\n",
            f"# ours\n\n#else\ndeb {ELSE} jammy main\n",
        ),
        (
            "old.list",
            f"deb https://mirror.example.com/old/ubuntu focal x\n deb-src {ELSE} ./\n# deb {GRAPHICS.uris[0]}/ x y\n",
            f" deb-src {ELSE} ./\n# deb {GRAPHICS.uris[0]}/ x y\n",
        ),
        (
            "old.sources",
            f"Types: deb\nURIs: {GRAPHICS.uris[0]}\nSuites: jammy\n\nTypes: deb\nURIs: {ELSE}\nSuites: a\n b\n",
            f"Types: deb\nURIs: {ELSE}\nSuites: a\n b\n",
        ),
        (
            "old.sources",
            f"# both\nTypes: deb\nuris: {GRAPHICS.uris[0]}/\n {ELSE}\nSuites: jammy\nComponents: main\n",
            f"# both\nTypes: deb\nURIs: {ELSE}\nSuites: jammy\nComponents: main",
        ),
    ],
)
def test_sources_of_others_in_a_superseded_file_stay(name: str, text: str, left: str) -> None:
    path = Path("/etc/apt/sources.list.d") / name
    repository = replace(FORMER, superseded=[str(path)])
    files = {path: parse_sources(name, text)}
    assert files_to_remove(repository, files) == []
    assert files_to_edit(repository, files) == {path: [ELSE]}
    assert without_own(repository, name, text) == left
    others = [entry for entry in parse_sources(name, text) if entry.uri == ELSE]
    assert [entry for entry in parse_sources(name, left) if entry.enabled] == others
    assert files_to_edit(repository, {path: others}) == {} and files_to_remove(repository, {path: others}) == []


OWN_STANZA = f"Types: deb\nURIs: {GRAPHICS.uris[0]}\nSuites: jammy\n"


@pytest.mark.parametrize(
    ("name", "text", "left"),
    [
        (
            "old.list",
            f"deb {GRAPHICS.uris[0]} jammy arc\n# deb {ELSE} jammy main # disabled on upgrade to jammy\n",
            f"# deb {ELSE} jammy main # disabled on upgrade to jammy\n",
        ),
        (
            "old.list",
            f"#deb-src [arch=amd64 signed-by=/k.gpg] {ELSE} ./\ndeb {GRAPHICS.uris[0]} jammy arc\n",
            f"#deb-src [arch=amd64 signed-by=/k.gpg] {ELSE} ./\n",
        ),
        (
            "old.sources",
            f"{OWN_STANZA}\nEnabled: no\nTypes: deb\nURIs: {ELSE}\nSuites: a\n",
            f"Enabled: no\nTypes: deb\nURIs: {ELSE}\nSuites: a\n",
        ),
        (
            "old.sources",
            f"# Types: deb\n# URIs: {ELSE}\n# Suites: a\n\n{OWN_STANZA}",
            f"# Types: deb\n# URIs: {ELSE}\n# Suites: a\n\n",
        ),
        (
            "old.sources",
            f"{OWN_STANZA}\nTypes: deb\nURIs: {ELSE}\nSuites: a\n".replace("\n", "\r\n"),
            f"Types: deb\nURIs: {ELSE}\nSuites: a\n".replace("\n", "\r\n"),
        ),
    ],
)
def test_what_somebody_disabled_or_wrote_on_windows_stays_too(name: str, text: str, left: str) -> None:
    path = Path("/etc/apt/sources.list.d") / name
    repository = replace(FORMER, superseded=[str(path)])
    files = {path: parse_sources(name, text)}
    assert files_to_remove(repository, files) == []
    assert files_to_edit(repository, files) == {path: [ELSE]}
    assert without_own(repository, name, text) == left
    after = {path: parse_sources(name, left)}
    assert files_to_edit(repository, after) == {} and files_to_remove(repository, after) == []


@pytest.mark.parametrize(
    "text",
    [
        f"deb {GRAPHICS.uris[0]} jammy arc\n# deb-src {GRAPHICS.uris[0]} jammy arc\n",
        f"# written by hand\n# deb is for packages, deb-src for sources\ndeb {GRAPHICS.uris[0]} jammy arc\n",
        f"deb {GRAPHICS.uris[0]} jammy arc\r\n",
    ],
)
def test_a_comment_and_what_is_disabled_of_its_own_keep_no_file(text: str) -> None:
    path = Path(GRAPHICS.superseded[0])
    files = {path: parse_sources(path.name, text)}
    assert files_to_remove(GRAPHICS, files) == [path] and files_to_edit(GRAPHICS, files) == {}


def test_a_file_with_a_disabled_source_of_others_is_not_removed_for_a_contradiction() -> None:
    path = Path("/etc/apt/sources.list.d/guide.list")
    text = f"deb [signed-by=/other.gpg] {GRAPHICS.uris[0]} jammy arc\n# deb {ELSE} jammy main\n"
    with pytest.raises(SourceError, match=ELSE):
        files_to_remove(GRAPHICS, {path: parse_sources(path.name, text)})


def test_a_superseded_file_with_the_repositorys_own_sources_alone_goes() -> None:
    path = Path(FORMER.superseded[0])
    files = {path: entries("", uri="https://mirror.example.com/old/ubuntu") + entries("/k.gpg")}
    assert files_to_remove(FORMER, files) == [path] and files_to_edit(FORMER, files) == {}


def test_a_superseded_file_without_tls_goes_too() -> None:
    path = Path(FORMER.superseded[0])
    files = {path: entries("", uri="http://mirror.example.com/old/ubuntu")}
    assert files_to_remove(FORMER, files) == [path]
    files = {path: entries("/k.gpg", uri=GRAPHICS.uris[0].replace("https:", "http:"))}
    assert files_to_remove(FORMER, files) == [path]
    plain = replace(FORMER, uris=["http://mirror.example.com/graphics/ubuntu"])
    assert files_to_remove(plain, {path: entries("/k.gpg", uri=plain.uris[0])}) == [path]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("old.list", f"# deb {ELSE} jammy main # disabled on upgrade to jammy\n"),
        ("old.sources", f"Enabled: no\nTypes: deb\nURIs: {ELSE}\nSuites: jammy\nComponents: main\n"),
    ],
)
def test_a_superseded_file_in_which_all_is_disabled_stays(name: str, text: str) -> None:
    path = Path("/etc/apt/sources.list.d") / name
    repository = replace(FORMER, superseded=[str(path)])
    files = {path: parse_sources(name, text)}
    assert files_to_remove(repository, files) == [] and files_to_edit(repository, files) == {}
