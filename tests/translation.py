"""Keep a translated document in step with its original: the same headings, commands and tables.

What is compared does not depend on the language: levels of headings, blocks of code without their comments, and of each
row of a table the number of cells and the words in backquotes. Sentences are for people to compare.
"""

from __future__ import annotations

import re
from itertools import zip_longest
from pathlib import Path
from typing import Any

_FENCE = "```"


def differences(original: Path, translation: Path) -> list[str]:
    """Return where the translation is not in step, one line each; nothing where it is."""
    theirs, ours = outline(original.read_text(encoding="utf-8")), outline(translation.read_text(encoding="utf-8"))
    problems = []
    for kind in theirs:
        for number, (there, here) in enumerate(zip_longest(theirs[kind], ours[kind]), 1):
            if there != here:
                problems.append(
                    f"{translation.name}: {kind} {number} is {_shown(here)}; in {original.name} {_shown(there)}"
                )
                break  # what follows is off by one, most often
    return problems


def outline(text: str) -> dict[str, list[Any]]:
    """Return a document's headings (their levels), blocks of code, and rows of tables."""
    found: dict[str, list[Any]] = {"heading": [], "block of code": [], "row of a table": []}
    block: list[str] | None = None
    for line in text.splitlines():
        if line.startswith(_FENCE):
            if block is not None:
                found["block of code"].append("\n".join(block))
            block = [line] if block is None else None
        elif block is not None:
            # A comment is a sentence for people.
            block.append(re.sub(r"(^|\s+)# .*", "", line).rstrip())
        elif heading := re.match(r"(#+) ", line):
            found["heading"].append(len(heading[1]))
        elif line.startswith("|"):
            cells = re.split(r"(?<!\\)\|", line.strip().strip("|"))
            found["row of a table"].append((len(cells), sorted(re.findall(r"`[^`]+`", line))))
    return found


def _shown(part: Any) -> str:
    return "missing" if part is None else repr(part)
