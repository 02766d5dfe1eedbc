"""Regular expressions as EBNF: the subset with the same meaning in every engine's library."""

from __future__ import annotations

from collections.abc import Sequence

from xpuserve.structured import StructuredOutputError

Ranges = Sequence[tuple[int, int]]
_MOST = 0x10FFFF
_ESCAPED = {"d": [(48, 57)], "w": [(48, 57), (65, 90), (95, 95), (97, 122)], "s": [(9, 13), (32, 32)]}
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v"}
# Characters that JSON escapes, or forbids.
_QUOTED = [(0, 31), (34, 34), (92, 92)]


def class_of(ranges: Ranges, *, negated: bool = False) -> str:
    """A character class.

    OpenVINO's library reads letters and digits after an escape as part of it: \\xdf and e as one character. So
    letters and digits come first, then the rest of ASCII, and then unprintable characters.
    """
    split = [(max(low, a), min(high, b)) for low, high in ranges for a, b in ((0, 31), (32, 126), (127, _MOST))]
    parts = sorted((pair for pair in split if pair[0] <= pair[1]), key=_last_where_escaped)
    texts = [_point(low) if low == high else f"{_point(low)}-{_point(high)}" for low, high in parts]
    return f"[{'^' * negated}{''.join(texts)}]"


def _last_where_escaped(pair: tuple[int, int]) -> int:
    low, high = pair
    if not 32 <= low <= 126:
        return 3
    return 2 if len(_point(low)) > 1 else 1 if len(_point(high)) > 1 and low != high else 0


def expression(text: str, where: str, *, quoted: bool = False) -> str:
    """A regular expression for a whole answer, or with `quoted` for a part of a JSON text.

    Raises StructuredOutputError.
    """
    reader = _Reader(text, where, quoted)
    found = reader.ways(top=True)
    if reader.at < len(text):
        raise reader.refused(text[reader.at])
    return found


def _point(code: int) -> str:
    char = chr(code)
    if char.isascii() and char.isalnum():
        return char
    return f"\\x{code:02x}" if code < 161 else char


def _without(ranges: Ranges, others: Ranges) -> list[tuple[int, int]]:
    left = list(ranges)
    for low, high in others:
        left = [part for a, b in left for part in ((a, min(b, low - 1)), (max(a, high + 1), b)) if part[0] <= part[1]]
    return left


class _Reader:
    def __init__(self, text: str, where: str, quoted: bool) -> None:
        self._text = text
        self._where = where
        self._quoted = quoted
        self.at = 0

    def refused(self, what: str) -> StructuredOutputError:
        """The error about an unsupported feature."""
        return StructuredOutputError(
            self._where, f"this server's engine does not offer {what!r} at character {self.at + 1} of it"
        )

    def ways(self, *, top: bool = False) -> str:
        """The alternatives, up to the end of the group."""
        found = [self._sequence(top=top)]
        while self._next() == "|":
            self.at += 1
            found.append(self._sequence(top=top))
        return f"({' | '.join(found)})"

    def _next(self) -> str:
        return self._text[self.at : self.at + 1]

    def _sequence(self, *, top: bool) -> str:
        begins = top and self._next() == "^"
        self.at += begins
        ends, parts = False, []
        while (char := self._next()) not in ("", "|", ")"):
            if char == "$" and top and self._text[self.at + 1 : self.at + 2] in ("", "|"):
                self.at += 1
                ends = True
                continue
            parts.append(self._atom() + self._count())
        if self._quoted and top:
            parts = ([] if begins else ["char*"]) + parts + ([] if ends else ["char*"])
        return " ".join(parts) or '""'

    def _atom(self) -> str:
        char = self._next()
        if char == "(":
            self.at += 1
            if self._text.startswith("?:", self.at):
                self.at += 2
            elif self._next() == "?":
                raise self.refused(self._text[self.at : self.at + 2])
            found = self.ways()
            if self._next() != ")":
                raise self.refused("(")
        elif char == "[":
            return self._class()
        elif char == ".":
            found = self._some([(10, 10)], negated=True)
        elif char == "\\":
            ranges, negated = self._escape()
            return self._some(ranges, negated=negated)
        elif char in "*+?{}^$]":
            raise self.refused(char)
        else:
            found = self._some([(ord(char), ord(char))])
        self.at += 1
        return found

    def _count(self) -> str:
        char, counted = self._next(), ""
        if char and char in "*+?":
            counted = char
            self.at += 1
        elif char == "{":
            end = self._text.find("}", self.at)
            low, comma, high = self._text[self.at + 1 : end].partition(",")
            if end < 0 or not low.isdecimal() or not (high == "" or high.isdecimal()):
                raise self.refused("{")
            counted = f"{{{int(low)}{comma}{int(high) if high else ''}}}"
            self.at = end + 1
        if counted and self._next() == "?":  # a lazy quantifier matches the same texts
            self.at += 1
        if counted and self._next() and self._next() in "*+?{":
            raise self.refused(self._next())
        return counted

    def _some(self, ranges: Ranges, *, negated: bool = False) -> str:
        if self._quoted:
            if negated:
                return class_of([*ranges, *_QUOTED], negated=True)
            ranges = _without(ranges, _QUOTED)
            if not ranges:
                raise self.refused("characters that JSON strings escape")
        return class_of(ranges, negated=negated)

    def _escape(self) -> tuple[Ranges, bool]:
        char = self._text[self.at + 1 : self.at + 2]
        if char.lower() in _ESCAPED and char:
            self.at += 2
            return _ESCAPED[char.lower()], char.isupper()
        if char in _CONTROLS or (char and not char.isalnum() and char not in "<>"):
            self.at += 2
            code = ord(_CONTROLS.get(char, char))
            return [(code, code)], False
        raise self.refused("\\" + char)

    def _class(self) -> str:
        self.at += 1
        negated = self._next() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        while (char := self._next()) != "]" or not ranges:
            if char in ("", "[") or self._text[self.at : self.at + 2] in ("&&", "--", "~~"):
                raise self.refused(char or "[")
            found = self._member()
            if self._next() == "-" and self._text[self.at + 1 : self.at + 2] not in ("]", ""):
                self.at += 1
                last = self._member()
                if len(found) > 1 or len(last) > 1 or found[0][0] > last[0][1]:
                    raise self.refused("-")
                found = [(found[0][0], last[0][1])]
            ranges += found
        self.at += 1
        return self._some(ranges, negated=negated)

    def _member(self) -> Ranges:
        if self._next() == "\\":
            ranges, negated = self._escape()
            if negated:
                raise self.refused("a negated class in a class")
            return ranges
        self.at += 1
        code = ord(self._text[self.at - 1])
        return [(code, code)]
