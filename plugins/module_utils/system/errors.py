"""The base of this collection's errors."""

from __future__ import annotations


class FleetError(Exception):
    """The request cannot be done. The message is for a person: what is wrong, where, and what to do.

    All other errors of the collection derive from it, so that every module reports them in one way.
    """
