"""Every supported ansible-core: unit tests, the syntax of all playbooks, a bare node provisioned and audited.

`make test-core`. Each core runs on the oldest Python that it supports and this machine has, the newest core on the
newest. A core without one is omitted, and named. The unit tests of node-side code run on every
Python that nodes may have and this machine has.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from typing import Any, Optional

from rig import host
from rig.host import RigError

from tests import docs
from tests.core import nodes, runs
from tests.core.runs import CORES, CoreError, Done
from tests.pythons import found, of_nodes

#: The file with the table.
DOCUMENT = runs.ROOT / "CONTRIBUTING.md"
HEAD = ["Controller", "Its Python", "Node", "What ran"]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Return 0 if everything passed, 1 if something failed, or if nothing could run."""
    options = parser().parse_args(arguments)
    try:
        host.require_root()
        host.require_tools(machines=False)
    except RigError as error:
        print(f"core: {error}", file=sys.stderr)
        return 1
    chosen = runs.controllers(options.cores, found())
    table: list[list[str]] = []
    failed = False
    works: dict[str, Callable[[], list[Done]]] = {
        name: functools.partial(runs.core, name, python) for name, python in chosen.items()
    }
    for version in options.nodes:
        works[f"node Python {words([version])}"] = functools.partial(nodes.tests, version, of_nodes()[version])
    for name in options.cores:
        if name not in chosen:
            low, high = CORES[name]
            told(f"{name}: not run, this machine has no Python from 3.{low} to 3.{high}")
            table.append([f"ansible-core {name}", "none found", "", "nothing"])
    for name, work in works.items():
        try:
            lines = work()
        except (CoreError, RigError) as error:
            told(f"{name}: {error}")
            failed = True
        else:
            table += [line.cells() for line in lines]
    print(*(" | ".join(cells) for cells in [HEAD, *table]), sep="\n")
    if options.write and not failed:
        date = datetime.now(timezone.utc).date()
        problems = docs.update(DOCUMENT, "cores", [[*HEAD[:3], f"{HEAD[3]} on {date}"], *table], check=False)
        print(*problems, sep="\n", file=sys.stderr)
        failed = bool(problems)
    return 1 if failed or not works else 0


def told(text: str) -> None:
    """Report progress, or a failure."""
    print(f"core: {text}", file=sys.stderr, flush=True)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the options."""
    top = argparse.ArgumentParser(prog="tests.core", description="Try the collection with each supported ansible-core.")
    known, here = list(CORES), list(of_nodes())
    top.add_argument("--cores", type=_chosen(known), default=known, help=f"some of {','.join(CORES)}, or none")
    top.add_argument("--nodes", type=_chosen(here), default=here, help=f"Pythons, some of {words(here)}, or none")
    top.add_argument("--write", action="store_true", help=f"write the table into {DOCUMENT.name}")
    return top


def words(pythons: Sequence[tuple[int, int]]) -> str:
    """Return minor versions as people write them, with commas."""
    return ",".join(f"{major}.{minor}" for major, minor in pythons)


def _chosen(known: Sequence[Any]) -> Callable[[str], list[Any]]:
    names = {word if isinstance(word, str) else words([word]): word for word in known}

    def chosen(text: str) -> list[Any]:
        asked = [] if text == "none" else text.split(",")
        if not set(asked) <= set(names):
            raise argparse.ArgumentTypeError(
                f"some of {','.join(names)}, with commas between them, or none, are needed"
            )
        return [names[word] for word in asked]

    return chosen


if __name__ == "__main__":
    sys.exit(main())
