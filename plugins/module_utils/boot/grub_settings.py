"""GRUB's settings, /etc/default/grub with its .d directory, and its environment block, grubenv."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_script import GrubScriptError, Lexer, Word
from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

BLOCK_SIZE = 1024
_BLOCK_HEADER = b"# GRUB Environment Block\n"


class GrubSettingsError(FleetError):
    """A settings file has unknown syntax; the message is for a person."""


class BlockError(FleetError):
    """The environment block is damaged or full; the message is for a person."""


@dataclass(frozen=True)
class Setting:
    """The last assignment of a setting; ``value`` is None if it is unknown."""

    value: Optional[str]
    path: str
    line: int


class GrubSettings:
    """/etc/default/grub and the files of its .d directory, in the order in which grub-mkconfig reads them."""

    def __init__(self, files: Mapping[str, str]) -> None:
        """Read FILES, texts by path, in their order."""
        #: Assignments in order: a setting's name, or "" with the text of an unknown line.
        self._events: list[tuple[str, str, Setting]] = []
        for path, text in files.items():
            try:
                self._read(path, text)
            except GrubScriptError:
                self._events.append(("", "eval", Setting(None, path, 0)))

    def get(self, key: str) -> Optional[Setting]:
        """Return the final value of a setting, None if nothing sets it.

        The value is unknown if the last line that sets it, or may set it, has unknown syntax.
        """
        for name, text, setting in reversed(self._events):
            if name == key or (not name and _may_set(text, key)):
                return setting
        return None

    def value(self, key: str) -> str:
        """Return the value of a setting, "" if nothing sets it. Raises SettingsError if it is unknown."""
        setting = self.get(key)
        if setting is not None and setting.value is None:
            where = f"{setting.path}, line {setting.line}" if setting.line else setting.path
            raise GrubSettingsError(f"{where}: cannot determine the effect on {key}")
        return (setting.value or "") if setting else ""

    def _read(self, path: str, text: str) -> None:
        depth = 0  # of conditions, loops and functions
        for words in _lines(Lexer(text, posix=True).words()):
            first = words[0].plain
            depth = max(0, depth - (first in ("fi", "done", "esac", "}")))
            assigned = words[1:] if first == "export" else words
            if first == "export":  # which may also name what was set before
                assigned = [word for word in assigned if not re.fullmatch(r"\w+", word.plain)]
            if not depth and all(_assigned(word) for word in assigned):
                for word in assigned:
                    known = word.expand(self._variables(word))
                    value = None if known is None else known.partition("=")[2]
                    self._events.append((_assigned(word), "", Setting(value, path, word.line)))
            else:
                line = " ".join(word.operator or "".join(part.text for part in word.parts) for word in words)
                self._events.append(("", line, Setting(None, path, words[0].line)))
            depth += first in ("if", "for", "while", "until", "case", "{") or words[-1].plain == "{"

    def _variables(self, word: Word) -> dict[str, Optional[str]]:
        names = {part.text for part in word.parts if part.kind == "variable"}
        settings = {name: self.get(name) for name in names}
        return {name: setting.value for name, setting in settings.items() if setting}


def _may_set(line: str, key: str) -> bool:
    """Tell whether a line of unknown syntax can set KEY: it names it, or reads or generates other lines."""
    return re.search(rf"\b{key}\b", line) is not None or re.match(r"(\.|source|eval)( |$)", line) is not None


def _assigned(word: Word) -> str:
    """Return the name that a word assigns, "" for other words."""
    match = re.match(r"([A-Za-z_]\w*)=", word.parts[0].text) if word.parts and word.parts[0].kind == "plain" else None
    return match[1] if match else ""


def _lines(words: list[Word]) -> Iterator[list[Word]]:
    """Yield the words of each command; operators other than separators stay among them."""
    line: list[Word] = []
    for word in words:
        if word.operator in ("\n", ";"):
            if line:
                yield line
            line = []
        else:
            line.append(word)
    if line:
        yield line


def settings_files(etc: Path) -> dict[str, str]:
    """Return the texts of the settings files below a directory /etc, in grub-mkconfig's order."""
    paths = [etc / "default/grub", *sorted((etc / "default/grub.d").glob("*.cfg"))]
    return {str(path): path.read_text(encoding="utf-8", errors="surrogateescape") for path in paths if path.is_file()}


def shell_quote(text: str) -> str:
    """Return TEXT in double quotes for a shell."""
    return '"' + re.sub(r'([\\"$`])', r"\\\1", text) + '"'


def menu_quote(text: str) -> str:
    """Return TEXT for GRUB_DEFAULT: grub-mkconfig puts it between double quotes of the menu."""
    return re.sub(r'([\\"$])', r"\\\1", text)


class EnvironmentBlock:
    """The variables of a grubenv file. It keeps comments and the order of variables."""

    def __init__(self, content: Optional[bytes] = None) -> None:
        """Read the content of a file, or begin an empty one; raises BlockError."""
        self._lines: list[tuple[str, bytes]] = []  # a variable's name, or "" for a comment with its line
        if content is None:
            return
        if len(content) != BLOCK_SIZE:
            raise BlockError(f"GRUB's environment block has {len(content)} bytes and not {BLOCK_SIZE}")
        if not content.startswith(_BLOCK_HEADER):
            raise BlockError("GRUB's environment block does not begin with its header")
        body = content[len(_BLOCK_HEADER) :].rstrip(b"#")
        for line in re.findall(rb"(?:[^\n\\]|\\.)*\n|.+$", body, re.DOTALL):
            name, equals, value = line.partition(b"=")
            if line.startswith(b"#"):
                self._lines.append(("", line))
            elif not equals or not line.endswith(b"\n"):
                raise BlockError(f"GRUB's environment block has a line without a variable: {line!r}")
            else:
                text = re.sub(rb"\\(.)", rb"\1", value[:-1], flags=re.DOTALL)
                self._lines.append((name.decode("utf-8", "surrogateescape"), text))

    @property
    def variables(self) -> dict[str, str]:
        """Return all variables."""
        return {name: value.decode("utf-8", "surrogateescape") for name, value in self._lines if name}

    def set(self, name: str, value: str) -> None:
        """Set a variable."""
        encoded = value.encode("utf-8", "surrogateescape")
        for index, (other, _ignored) in enumerate(self._lines):
            if other == name:
                self._lines[index] = (name, encoded)
                return
        self._lines.append((name, encoded))

    def unset(self, name: str) -> None:
        """Remove a variable."""
        self._lines = [line for line in self._lines if line[0] != name]

    def content(self) -> bytes:
        """Return the whole block. Raises BlockError if it is too long."""
        lines = [
            name.encode("utf-8", "surrogateescape") + b"=" + re.sub(rb"([\\\n])", rb"\\\1", value) + b"\n"
            if name
            else value
            for name, value in self._lines
        ]
        content = _BLOCK_HEADER + b"".join(lines)
        if len(content) > BLOCK_SIZE:
            raise BlockError(f"GRUB's environment block is full: {len(content)} bytes do not fit into {BLOCK_SIZE}")
        return content.ljust(BLOCK_SIZE, b"#")
