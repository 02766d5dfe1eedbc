"""Text for a terminal: a server's words without control sequences and invisible characters."""

from __future__ import annotations

import unicodedata

#: Unicode categories to replace: control characters, surrogates, separators of lines and paragraphs.
_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: Formats: bidirectional and zero-width characters, tags. Without them, emoji fall into their readable parts.
_UNSEEN = "Cf"
#: Invisible letters and marks, by code point.
_BLANK = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0})


def shown(text: str, keep: str = "\n\t") -> str:
    """Return a text for display: a replacement for each control character, nothing for invisible ones.

    Each character is handled separately, so a text may come in pieces.
    """
    return "".join(char if char in keep else _shown(char) for char in text)


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if category == _UNSEEN or ord(char) in _BLANK:
        return ""
    return "\ufffd" if category in _NO_TEXT else char
