"""The errors of this collection's own."""

from __future__ import annotations


class FleetError(Exception):
    """What was asked cannot be done. The message is for a person: what is wrong, where, and what to do.

    Every other error of the collection is one of these, so that a module reports them all in one way.
    """
