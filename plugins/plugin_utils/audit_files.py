"""The files of an audit on the controller: check that they can be written or read before any node is audited."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.audit.before import EarlierError, earlier_paths, read_earlier


def audit_files(wanted: Mapping[str, str], before: Sequence[str] | str = ()) -> dict[str, Any]:
    """Return the path of each of the ``wanted`` files ("" without one), and the ``earlier`` audits.

    Relative paths start at the operator's directory. ``problems`` has a sentence for each file that cannot be used.
    """
    places = {name: str(Path(path).expanduser().absolute()) if path else "" for name, path in wanted.items()}
    problems = [problem for name, place in places.items() if place and (problem := _unwritable(name, Path(place)))]
    taken = [place for place in places.values() if place]
    problems += [
        f"{place} is the path of two reports: set different paths."
        for place in sorted({*taken})
        if taken.count(place) > 1
    ]
    earlier = []
    try:
        paths = earlier_paths([before] if isinstance(before, str) else before)
    except EarlierError as error:
        problems.append(str(error))
    else:
        for path in paths:
            try:
                earlier.append(read_earlier(path))
            except EarlierError as error:
                problems.append(str(error))
    return {"places": places, "earlier": earlier, "problems": problems}


def _unwritable(name: str, place: Path) -> str:
    """Return why a file cannot be written, "" if it can: this tests its folder, as permissions do not tell all."""
    if place.is_dir():
        return f"{name}: {place} is a directory."
    try:
        with tempfile.TemporaryFile(dir=place.parent):
            return ""
    except OSError as error:
        return f"{name}: {place} cannot be written: {error.strerror}."
