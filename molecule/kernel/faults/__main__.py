"""Command line: choose faults, inject them, print the table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Optional

from kernel.faults.catalogue import FAULTS, STORIES, choose
from kernel.faults.table import COLUMNS, as_markdown, as_text, rows

_started = time.monotonic()


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Return 0 if every fault was survived."""
    parser = argparse.ArgumentParser(prog="kernel.faults", description=__doc__)
    parser.add_argument(
        "stories",
        nargs="*",
        metavar="STORY",
        help="a story, a fault, or faults with commas between that happen one after the other (default: all stories)",
    )
    parser.add_argument("--list", action="store_true", help="name the faults and what they do, and the stories")
    parser.add_argument(
        "--each", action="store_true", help="every fault for itself, from a snapshot to a run that converges"
    )
    parser.add_argument(
        "--on", metavar="FLEET/MACHINE", help="use a machine that is up, which stays up; the run after is yours"
    )
    parser.add_argument("--markdown", action="store_true", help="print the table for a document")
    parser.add_argument("--machines", type=int, default=2, metavar="N", help="machines to use at once (default 2)")
    parser.add_argument("--keep", action="store_true", help="leave the machines up")
    parser.add_argument("--reuse", action="store_true", help="start from snapshots that a run with --keep left")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{fault.name:16} {fault.title}" for fault in FAULTS))
        print("\n".join(f"{name:16} {' '.join(names)}" for name, names in STORIES.items()))
        return 0
    try:
        stories = choose(options.stories or ([fault.name for fault in FAULTS] if options.each else []))
    except KeyError as error:
        parser.error(f"there is no fault or story {error}; --list names them")
    from kernel.faults import bench  # noqa: PLC0415 - the list needs no machines

    if options.on:
        outcomes = bench.run_on(options.on, stories, tell, options.reuse)
    else:
        machines = bench.up(min(options.machines, len(stories)))
        try:
            outcomes = bench.run_all(stories, machines, tell, options.reuse)
        finally:
            if not options.keep:
                bench.down()
    print((as_markdown if options.markdown else as_text)(COLUMNS, rows(outcomes)))
    bad = [outcome.fault.name for outcome in outcomes if outcome.problems]
    count = sum(map(len, stories))
    tell(f"{len(outcomes) - len(bad)} of {count} faults survived" + f"; not: {', '.join(bad)}" * bool(bad))
    return 1 if bad or len(outcomes) < count else 0


def tell(text: str) -> None:
    """Print a line of progress with the time since the start."""
    print(f"[{time.monotonic() - _started:6.0f}s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
