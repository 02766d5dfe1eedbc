"""Text for a terminal: of what a server said, nothing that a terminal obeys or a person cannot see."""

from __future__ import annotations

import unicodedata

#: Unicode's categories of what is no text: control characters, surrogates, separators of lines and paragraphs.
_NO_TEXT = frozenset({"Cc", "Cs", "Zl", "Zp"})
#: Formats: bidirectional and zero-width characters, tags. Emoji fall into their parts without, which can all be read.
_UNSEEN = "Cf"
#: Letters and marks that nothing is seen of, by their number.
_BLANK = frozenset({0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x3164, 0xFFA0})


def shown(text: str, keep: str = "\n\t") -> str:
    """Return a text as it can be shown: a sign for each character that a terminal would obey, none for unseen ones.

    Each character is taken by itself, so a text may come in pieces.
    """
    return "".join(char if char in keep else _shown(char) for char in text)


def _shown(char: str) -> str:
    category = unicodedata.category(char)
    if category == _UNSEEN or ord(char) in _BLANK:
        return ""
    return "\ufffd" if category in _NO_TEXT else char
