"""Protects the operator's terminal from control sequences in nodes' output, for callbacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from ansible_collections.xpu.fleet.plugins.module_utils.plain import plain, plain_data

#: The colours of Ansible itself, from ansible.utils.color.
_COLOUR = re.compile("(\x1b\\[[0-9;]{1,20}m)")
#: Display's prefixes of warnings and errors, whose text may be a node's.
_MARKED = ("[WARNING]: ", "[ERROR]: ", "[DEPRECATION WARNING]: ")
#: Callback methods that receive a node's results.
_TOLD = ("v2_runner_", "v2_on_file_diff")

Callback = TypeVar("Callback", bound=type)


def with_plain_results(callback: Callback) -> Callback:
    """Pass only plain text to every method of a callback class that receives a node's result."""
    for name in dir(callback):
        if name.startswith(_TOLD) and name != "v2_runner_on_start":
            setattr(callback, name, _plain_result(getattr(callback, name)))
    return callback


def _plain_result(method: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(method)
    def with_plain(self: Any, result: Any, *args: Any, **kwargs: Any) -> Any:
        found = result._result
        for key, value in found.items():
            # Display writes Ansible's own objects.
            if key not in ("exception", "warnings", "deprecations"):
                found[key] = plain_data(value)
        return method(self, result, *args, **kwargs)

    return with_plain


class PlainDisplay:
    """Ansible's display for a callback with plain results: the only escape sequences are Ansible's own colours.

    Other messages, such as warnings about a node's answer, are written without any.
    """

    def __init__(self, display: Any) -> None:
        self._inner = display
        # A process has one display, so this changes it once.
        self._write = vars(display).setdefault("_xpu_fleet_write", display.display)
        display.display = self._plainly

    def display(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Write a message of the callback itself."""
        parts = _COLOUR.split(msg)
        self._write("".join(part if _COLOUR.fullmatch(part) else plain(part) for part in parts), *args, **kwargs)

    def _plainly(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Write any other message; only a warning's first line begins at the margin."""
        text = plain(msg)
        if text.startswith(_MARKED):
            text = text.rstrip("\n").replace("\n", "\n  ")
        self._write(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
