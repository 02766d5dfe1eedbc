"""Keeps what nodes say from being obeyed by the operator's terminal, for callbacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ansible_collections.xpu.fleet.plugins.module_utils.plain import plain, plain_data

#: The colours that Ansible itself writes, as ansible.utils.color has them.
_COLOUR = re.compile("(\x1b\\[[0-9;]{1,20}m)")
#: What Display writes before warnings and errors, whose text may be a node's.
_MARKED = ("[WARNING]: ", "[ERROR]: ", "[DEPRECATION WARNING]: ")
#: What a callback is told of a node's results.
_TOLD = ("v2_runner_", "v2_on_file_diff")

Callback = TypeVar("Callback", bound=type)


def with_plain_results(callback: Callback) -> Callback:
    """Let every method of a class of callbacks that gets a node's result get it with plain text alone."""
    for name in dir(callback):
        if name.startswith(_TOLD) and name != "v2_runner_on_start":
            setattr(callback, name, _plain_result(getattr(callback, name)))
    return callback


def _plain_result(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def with_plain(self: Any, result: Any, *args: Any, **kwargs: Any) -> Any:
        found = result._result
        for key, value in found.items():
            # Ansible's own objects are written by Display.
            if key not in ("exception", "warnings", "deprecations"):
                found[key] = plain_data(value)
        return method(self, result, *args, **kwargs)

    return with_plain


class PlainDisplay:
    """Ansible's display for a callback whose results are plain: of escape sequences it writes Ansible's own colours.

    What else comes to the display, such as warnings about a node's answer, is written without any.
    """

    def __init__(self, display: Any) -> None:
        self._inner = display
        # There is one display in a process, and it is changed once.
        self._write = vars(display).setdefault("_xpu_fleet_write", display.display)
        display.display = self._plainly

    def display(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Write a message of the callback's own."""
        parts = _COLOUR.split(msg)
        self._write("".join(part if _COLOUR.fullmatch(part) else plain(part) for part in parts), *args, **kwargs)

    def _plainly(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Write any other message; no line of a warning but its first begins at the margin."""
        text = plain(msg)
        if text.startswith(_MARKED):
            text = text.rstrip("\n").replace("\n", "\n  ")
        self._write(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
