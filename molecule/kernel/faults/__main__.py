"""Command line: choose faults, let them happen, print the table."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Optional

from kernel.faults.catalogue import FAULTS, Fault, choose
from kernel.faults.table import COLUMNS, as_markdown, as_text, rows

if TYPE_CHECKING:
    from kernel.faults.bench import Outcome

_started = time.monotonic()


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Return 0 where every fault was survived."""
    parser = argparse.ArgumentParser(prog="kernel.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="FAULT", help="faults by name (default: all)")
    parser.add_argument("--list", action="store_true", help="name the faults and what they do")
    parser.add_argument("--markdown", action="store_true", help="print the table for a document")
    parser.add_argument("--machines", type=int, default=2, metavar="N", help="machines to use at once (default 2)")
    parser.add_argument(
        "--story", action="store_true", help="all on one machine, each run going on after the last fault"
    )
    parser.add_argument(
        "--on", metavar="FLEET/MACHINE", help="a story on a machine that is up, which stays up; the run after is yours"
    )
    parser.add_argument("--keep", action="store_true", help="leave the machines up")
    parser.add_argument("--reuse", action="store_true", help="start from snapshots that a run with --keep left")
    options = parser.parse_args(arguments)
    if options.list:
        print("\n".join(f"{fault.name:16} {fault.title}" for fault in FAULTS))
        return 0
    try:
        faults = choose(options.names)
    except KeyError as error:
        parser.error(f"there is no fault {error}; --list names them")
    from kernel.faults import bench  # noqa: PLC0415 - the list needs no machines

    if options.on:
        fleet, _, machine = options.on.partition("/")
        return conclude(faults, bench.run_story(faults, fleet, machine, tell, open_end=True), options.markdown)
    machines = bench.up(1 if options.story else options.machines)
    try:
        if options.story:
            outcomes = bench.run_story(faults, bench.FLEET, machines[0], tell, reuse=options.reuse)
        else:
            outcomes = bench.run_all(faults, machines, tell, options.reuse)
    finally:
        if not options.keep:
            bench.down()
    return conclude(faults, outcomes, options.markdown)


def conclude(faults: Sequence[Fault], outcomes: Sequence[Outcome], markdown: bool) -> int:
    """Print the table; return 0 where every fault was survived."""
    print((as_markdown if markdown else as_text)(COLUMNS, rows(outcomes)))
    bad = [outcome.fault.name for outcome in outcomes if outcome.problems]
    missing = {fault.name for fault in faults} - {outcome.fault.name for outcome in outcomes}
    tell(f"{len(outcomes) - len(bad)} of {len(faults)} faults survived" + f"; not: {', '.join(bad)}" * bool(bad))
    return 1 if bad or missing else 0


def tell(text: str) -> None:
    """Print a line of progress with the time since the start."""
    print(f"[{time.monotonic() - _started:6.0f}s] {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
