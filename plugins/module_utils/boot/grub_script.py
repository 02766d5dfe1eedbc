"""The words and statements of GRUB's script language, and of the shell, whose words are the same."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional, Union

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError


class GrubScriptError(FleetError):
    """The text is malformed; the message is for a person and names the line."""


@dataclass(frozen=True)
class WordPart:
    """A piece of a word: plain or quoted text, a variable's name, or unknown syntax."""

    kind: str  # plain, quoted, variable, opaque
    text: str


@dataclass(frozen=True)
class Word:
    """A word of a command, or an operator where ``operator`` is set."""

    parts: tuple[WordPart, ...]
    line: int
    operator: str = ""

    @property
    def plain(self) -> str:
        """Return the text of a word without quotes and variables, which can be a keyword; "" for any other."""
        return self.parts[0].text if len(self.parts) == 1 and self.parts[0].kind == "plain" else ""

    def expand(self, variables: Mapping[str, Optional[str]]) -> Optional[str]:
        """Return its text, None if a part is unknown."""
        texts = [variables.get(part.text, "") if part.kind == "variable" else part.text for part in self.parts]
        if any(part.kind == "opaque" for part in self.parts) or None in texts:
            return None
        return "".join(text for text in texts if text)

    def vanishes(self, variables: Mapping[str, Optional[str]]) -> bool:
        """Tell whether it expands to no argument: an empty variable without quotes."""
        return all(part.kind == "variable" and variables.get(part.text, "") == "" for part in self.parts)


class Lexer:
    """Splits GRUB's script language, or the shell, into words and operators."""

    def __init__(self, text: str, *, posix: bool = False) -> None:
        self._text = text
        self._posix = posix
        self._at = 0
        self._line = 1
        self._separators = ";&|<>()" if posix else ";&|<>{}"

    def words(self) -> list[Word]:
        """Return all words and operators. Raises ScriptError for an unclosed quote."""
        words: list[Word] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == "\n":
                words.append(Word((), self._line, "\n"))
                self._forward()
            elif character in " \t\r":
                self._forward()
            elif self._text.startswith("\\\n", self._at):
                self._forward(2)
            elif character == "#":
                while self._at < len(self._text) and self._text[self._at] != "\n":
                    self._forward()
            elif character in self._separators:
                words.append(Word((), self._line, character))
                self._forward()
            else:
                words.append(self._word())
        return words

    def _forward(self, count: int = 1) -> str:
        text = self._text[self._at : self._at + count]
        self._at += count
        self._line += text.count("\n")
        return text

    def _word(self) -> Word:
        line, parts = self._line, list[WordPart]()
        while self._at < len(self._text):
            character = self._text[self._at]
            if character in " \t\r\n" or character in self._separators:
                break
            if character == "'":
                parts.append(WordPart("quoted", self._single()))
            elif character == '"':
                parts += self._double()
            elif character == "\\":
                self._forward()
                escaped = self._forward()
                if escaped != "\n":
                    parts.append(WordPart("quoted", escaped))
            elif character == "$":
                parts.append(self._variable())
            elif character == "`" and self._posix:
                parts.append(self._opaque())
            else:
                parts.append(WordPart("plain", self._forward()))
        return Word(_joined(parts), line)

    def _single(self) -> str:
        line = self._line
        self._forward()
        end = self._text.find("'", self._at)
        if end < 0:
            raise GrubScriptError(f"line {line}: a quote is not closed")
        text = self._forward(end - self._at)
        self._forward()
        return text

    def _double(self) -> list[WordPart]:
        line = self._line
        self._forward()
        parts = [WordPart("quoted", "")]
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == '"':
                self._forward()
                return parts
            if character == "\\" and self._text[self._at + 1 : self._at + 2] in ("$", '"', "\\", "\n", "`"):
                self._forward()
                escaped = self._forward()
                parts.append(WordPart("quoted", "" if escaped == "\n" else escaped))
            elif character == "$":
                parts.append(self._variable())
            elif character == "`" and self._posix:
                parts.append(self._opaque())
            else:
                parts.append(WordPart("quoted", self._forward()))
        raise GrubScriptError(f"line {line}: a quote is not closed")

    def _variable(self) -> WordPart:
        match = re.compile(r"\$(?:(?P<name>\w+|[?#*@])|\{(?P<braced>\w+|[?#*@])\})").match(self._text, self._at)
        if match:
            self._forward(len(match[0]))
            return WordPart("variable", match["name"] or match["braced"])
        if self._posix and self._text[self._at + 1 : self._at + 2] in ("{", "("):
            return self._opaque()
        return WordPart("quoted", self._forward())

    def _opaque(self) -> WordPart:
        """Skip what only a shell can expand: $(...), ${...}, `...`."""
        start, line = self._at, self._line
        if self._forward() == "`":
            closing = [self._text.find("`", self._at)]
        else:
            closing, depth = [-1], 0
            for match in re.compile(r"[(){}]").finditer(self._text, self._at):
                depth += 1 if match[0] in "({" else -1
                if depth == 0:
                    closing = [match.start()]
                    break
        if closing[0] < 0:
            raise GrubScriptError(f"line {line}: an expansion is not closed")
        self._forward(closing[0] + 1 - self._at)
        return WordPart("opaque", self._text[start : self._at])


def _joined(parts: list[WordPart]) -> tuple[WordPart, ...]:
    """Join neighbours of the same kind."""
    joined: list[WordPart] = []
    for part in parts:
        if joined and part.kind in ("plain", "quoted") and joined[-1].kind == part.kind:
            joined[-1] = WordPart(part.kind, joined[-1].text + part.text)
        else:
            joined.append(part)
    return tuple(joined)


@dataclass(frozen=True)
class Command:
    """A simple command."""

    words: tuple[Word, ...]


@dataclass(frozen=True)
class Condition:
    """if, elif and else: pairs of a condition and its statements; the condition of else is empty."""

    branches: tuple[tuple[tuple[Statement, ...], tuple[Statement, ...]], ...]


@dataclass(frozen=True)
class Loop:
    """for, while or until."""

    body: tuple[Statement, ...]


@dataclass(frozen=True)
class Block:
    """A menu entry, a submenu or a function: its words up to the brace, and its body."""

    words: tuple[Word, ...]
    body: tuple[Statement, ...]


Statement = Union[Command, Condition, Loop, Block]
_BLOCKS = ("menuentry", "submenu", "hiddenentry", "function")


class Parser:
    """Parses a menu's words into statements."""

    def __init__(self, text: str) -> None:
        self._words = Lexer(text).words()
        self._at = 0

    def script(self) -> tuple[Statement, ...]:
        """Return the statements of the whole text."""
        statements = self._statements(())
        if self._at < len(self._words):
            raise self._unexpected()
        return statements

    def _unexpected(self) -> GrubScriptError:
        if self._at >= len(self._words):
            return GrubScriptError("the file ends in the middle of a block")
        word = self._words[self._at]
        return GrubScriptError(f"line {word.line}: '{word.operator or word.plain or 'a word'}' is not supported here")

    def _statements(self, ends: tuple[str, ...]) -> tuple[Statement, ...]:
        """Read statements up to a keyword or operator of ENDS, which stays, or to the end of the text."""
        statements: list[Statement] = []
        while self._at < len(self._words):
            word = self._words[self._at]
            if word.operator in ("\n", ";"):
                self._at += 1
            elif (word.operator or word.plain) in ends:
                return tuple(statements)
            elif word.operator:
                raise self._unexpected()
            else:
                statements.append(self._statement(word.plain))
        if ends:
            raise self._unexpected()
        return tuple(statements)

    def _statement(self, keyword: str) -> Statement:
        if keyword == "if":
            return self._condition()
        if keyword in ("for", "while", "until"):
            self._at += 1
            self._statements(("do",))
            self._at += 1
            body = self._statements(("done",))
            self._at += 1
            return Loop(body)
        if keyword in ("then", "elif", "else", "fi", "do", "done"):
            raise self._unexpected()
        words = []
        while self._at < len(self._words) and not self._words[self._at].operator:
            words.append(self._words[self._at])
            self._at += 1
        if keyword in _BLOCKS and self._next_operator() == "{":
            self._at += 1
            body = self._statements(("}",))
            self._at += 1
            return Block(tuple(words), body)
        if keyword in _BLOCKS or self._next_operator() not in ("\n", ";", "}"):
            raise self._unexpected()
        return Command(tuple(words))

    def _next_operator(self) -> str:
        return self._words[self._at].operator if self._at < len(self._words) else "\n"

    def _condition(self) -> Condition:
        branches = []
        keyword = "if"
        while keyword in ("if", "elif"):
            self._at += 1
            test = self._statements(("then",))
            self._at += 1
            body = self._statements(("elif", "else", "fi"))
            branches.append((test, body))
            keyword = self._words[self._at].plain
        if keyword == "else":
            self._at += 1
            branches.append(((), self._statements(("fi",))))
        self._at += 1
        return Condition(tuple(branches))
