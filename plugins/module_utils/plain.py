"""Text that is safe on a terminal: what a node said, without anything that a terminal obeys or a reader cannot see."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

#: Unicode's categories of what is no text: control characters (C0, DEL, C1), formats (bidirectional, zero width, tags),
#: surrogates, and separators of lines and paragraphs.
_NO_TEXT = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
#: Letters and marks that nothing is seen of, by their number.
_UNSEEN = frozenset(map(chr, (0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0)))
#: What stands in the place of each such character.
REPLACEMENT = "\ufffd"
#: The longest text, the longest list, the deepest nesting and the largest number that plain data keeps.
LONGEST, MOST, DEEPEST, LARGEST = 100_000, 10_000, 50, 2**64


def plain(text: Any, keep: str = "\n\t", longest: int = LONGEST) -> str:
    """Return a value as text, with a replacement character for each character that is none, but for those of ``keep``.

    What is longer than ``longest`` characters is cut.
    """
    whole = _said(text)
    some = (whole if len(whole) <= longest else f"{whole[:longest]}...").replace("\r\n", "\n")
    if some.isprintable() and _UNSEEN.isdisjoint(some):
        return some
    return "".join(char if char in keep or is_text(char) else REPLACEMENT for char in some)


def is_text(char: str) -> bool:
    """Tell whether a character is one that a reader sees, or a space."""
    return unicodedata.category(char) not in _NO_TEXT and char not in _UNSEEN


def one_line(text: Any, longest: int = 200) -> str:
    """Return a value as one line of text of this length at most, with single spaces."""
    joined = plain(" ".join(_said(text)[: 10 * longest].split()), keep="")
    return joined if len(joined) <= longest else f"{joined[: longest - 3]}..."


def plain_data(value: Any, depth: int = 0) -> Any:
    """Return plain data, all text of which is plain: what JSON knows, and nothing too long or nested too deep."""
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
    """Return a value as text, also one that Python refuses to write: a number too long, a list nested too deep."""
    try:
        return str(value)
    except (ValueError, RecursionError):
        return f"({type(value).__name__})"
