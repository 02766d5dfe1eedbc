"""Text for a terminal: a node's words without control sequences and invisible characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

#: Unicode categories of characters to replace: control characters (C0, DEL, C1), formats (bidirectional, zero width,
#: tags), surrogates, and separators of lines and paragraphs.
_NO_TEXT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Invisible letters and marks, by code point.
_UNSEEN = frozenset(map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0)))
#: Replaces each such character.
REPLACEMENT = "\ufffd"
#: Limits of plain data: longest text, longest list, deepest nesting and largest number.
LONGEST, MOST, DEEPEST, LARGEST = 100_000, 10_000, 50, 2**64


def plain(text: Any, keep: str = "\n\t", longest: int = LONGEST) -> str:
    """Return a value as text, with a replacement character for each unprintable one, except those of ``keep``.

    Text beyond ``longest`` characters is cut off.
    """
    whole = _said(text)
    some = (whole if len(whole) <= longest else f"{whole[:longest]}...").replace("\r\n", "\n")
    if some.isprintable() and _UNSEEN.isdisjoint(some):
        return some
    return "".join(char if char in keep or is_text(char) else REPLACEMENT for char in some)


def is_text(char: str) -> bool:
    """Tell whether a character is visible, or a space."""
    return unicodedata.category(char) not in _NO_TEXT and char not in _UNSEEN


def one_line(text: Any, longest: int = 200) -> str:
    """Return a value as one line of text of at most this length, with single spaces."""
    joined = plain(" ".join(_said(text)[: 10 * longest].split()), keep="")
    return joined if len(joined) <= longest else f"{joined[: longest - 3]}..."


def plain_data(value: Any, depth: int = 0) -> Any:
    """Return plain data with plain text only: types of JSON, and nothing too long or too deeply nested."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return value if abs(value) <= LARGEST else "no number"  # nor is NaN
    if depth >= DEEPEST:
        return "..."
    if isinstance(value, Mapping):
        some = list(value.items())[:MOST]
        return {plain(key): plain_data(item, depth + 1) for key, item in some}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_data(item, depth + 1) for item in list(value)[:MOST]]
    return plain(value.decode("utf-8", "replace") if isinstance(value, bytes) else value)


def _said(value: Any) -> str:
    """Return a value as text, even if Python refuses to print it: a number too long, a list nested too deep."""
    try:
        return str(value)
    except (ValueError, RecursionError):
        return f"({type(value).__name__})"
