"""Findings of `make sanity`, minutes earlier: what ansible-test refuses and no other linter here reports."""

from __future__ import annotations

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
#: Folders of the artifact that have code or texts of our own.
SHIPPED = ("plugins", "roles", "playbooks", "meta", "changelogs")
#: `bad-names` of ansible-test's settings for pylint; `_` is the name of gettext's function.
NAMES = {"_", "bar", "baz", "foo", "toto", "tutu", "tata"}
QUOTES = "\u2018\u2019\u201c\u201d"


def disallowed(source: str) -> list[tuple[int, str]]:
    """Return line and name of each use of a name that means nothing."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return [(token.start[0], token.string) for token in tokens if token.type == tokenize.NAME and token.string in NAMES]


def files(*suffixes: str) -> list[Path]:
    """Return the shipped files with one of these suffixes."""
    return [
        path
        for folder in SHIPPED
        for path in sorted((ROOT / folder).rglob("*"))
        if path.suffix in suffixes and path.is_file()
    ]


def test_names_say_something() -> None:
    found = {str(path.relative_to(ROOT)): names for path in files(".py") if (names := disallowed(path.read_text()))}
    assert found == {}, "say what is ignored: _rest, _status"


def test_quotes_are_plain_in_sources() -> None:
    texts = files(".py", ".yml", ".yaml", ".j2", ".html", ".js", ".css", ".md", ".cfg")
    found = [str(path.relative_to(ROOT)) for path in texts if set(QUOTES) & set(path.read_text(encoding="utf-8"))]
    assert found == [], "write &ldquo; in HTML, \\u201c in scripts"


@pytest.mark.parametrize("source", ["for _ in range(3): pass", "a, _ = b", "[bar for bar in a]", "lambda _: 1"])
def test_a_name_that_means_nothing_is_found(source: str) -> None:
    assert disallowed(source)


def test_what_is_ignored_is_ignored_for_a_reason_and_for_every_core_alike() -> None:
    """Modules, callbacks and lookups need a line each: ansible-test knows no licence but the GPL."""
    files_of_cores = sorted((ROOT / "tests/sanity").glob("ignore-*.txt"))
    assert len(files_of_cores) == 5
    assert len({path.read_text() for path in files_of_cores}) == 1
    lines = files_of_cores[0].read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"\S+ \S+  # \S.*", line)] == []
    plugins = [path for kind in ("modules", "callback", "lookup") for path in ROOT.glob(f"plugins/{kind}/*.py")]
    unlicensed = {line.split()[0] for line in lines if "missing-gplv3-license" in line}
    assert unlicensed == {str(path.relative_to(ROOT)) for path in plugins}
