"""The table of faults and outcomes, for a terminal and for a document."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Protocol

from kernel.faults.catalogue import Fault

COLUMNS = ("Fault", "What happens", "Machine afterwards", "What the play says", "Next run")
WIDTHS = (14, 28, 26, 52, 22)


class Outcome(Protocol):
    """The result of a fault."""

    fault: Fault
    problems: list[str]
    machine: str
    says: str
    next_run: str


def rows(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return one row per outcome, with the failure beside the fault's name."""
    return [
        (
            f"{outcome.fault.name}{' FAILED' if outcome.problems else ''}",
            outcome.fault.title,
            outcome.machine,
            outcome.says,
            outcome.next_run,
        )
        for outcome in outcomes
    ]


def as_text(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return the table in columns, long cells wrapped."""
    lines = []
    for row in [columns, ["-" * width for width in WIDTHS], *cells]:
        wrapped = [textwrap.wrap(cell, width) or [""] for cell, width in zip(row, WIDTHS)]
        for number in range(max(map(len, wrapped))):
            parts = (part[number] if number < len(part) else "" for part in wrapped)
            lines.append("  ".join(part.ljust(width) for part, width in zip(parts, WIDTHS)).rstrip())
    return "\n".join(lines)


def as_markdown(columns: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """Return the table for a document."""
    head = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    body = []
    for name, *rest in cells:
        # A bar would begin another column, and less-than signs are tags.
        safe = [cell.replace("|", r"\|").replace("<", "&lt;") for cell in rest]
        body.append(f"| `{name}` | {' | '.join(safe)} |")
    return "\n".join([*head, *body])
