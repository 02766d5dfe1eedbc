"""Mistakes in the variables of a host: misspelt names, and invalid values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ansible_collections.xpu.fleet.plugins.module_utils.variable_types import as_list, problems
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.names import prefixes, public, unknown
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.origin import origin
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.rules import broken_rules
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import INTERNAL, fleet_options

#: The list of the operator's own names that begin like the collection's.
OTHERS = "xpu_other_variables"
_OWN = f"Add a variable of your own to the list {OTHERS}."


class Check:
    """Checks the variables of one host. ``template`` evaluates a template."""

    def __init__(self, variables: Mapping[str, Any], template: Callable[[Any], Any]) -> None:
        """Nothing is checked yet."""
        self.problems: list[str] = []
        #: Variables whose templates need results of this run.
        self.postponed: list[str] = []
        self._variables = variables
        self._template = template

    def names(self) -> None:
        """Find misspelt names of the collection's variables."""
        others = self._variables.get(OTHERS)
        allowed = [str(pattern) for pattern in as_list(self._template(others)) or []] if others else []
        found = unknown(self._variables, allowed)
        for name, near in sorted(found.items()):
            place = self._place(name)
            written = f"{name} ({place})" if place else name
            self.problems.append(f"{written} is not a variable of xpu.fleet: did you mean {' or '.join(near)}?")
        if found:
            self.problems.append(_OWN)

    def values(self, options: Mapping[str, Mapping[str, Any]]) -> None:
        """Find values of these variables, and of the fleet's, that have a wrong type or are invalid."""
        for name, option in {**fleet_options(), **options}.items():
            # A role's default is not a mistake of the inventory.
            if name in self._variables and self._variables[name] != option.get("default"):
                self._value(name, option)

    def _value(self, name: str, option: Mapping[str, Any]) -> None:
        raw = self._variables[name]
        try:
            value = self._template(raw)
        except Exception as error:
            self._broken(name, str(error))
            return
        for problem in problems({name: option}, {name: value}) or broken_rules(name, option, value):
            self._add(name, problem)

    def _broken(self, name: str, why: str) -> None:
        """Report a template that fails, or leave it for later if it needs a variable of the collection."""
        missing = re.findall(r"'(\w+)' is undefined", why)
        if any(self._is_to_come(variable) for variable in missing):
            self.postponed.append(name)
        else:
            self._add(name, f"{name} has a template that fails: {' '.join(why.split()).rstrip('.')}.")

    def _add(self, name: str, problem: str) -> None:
        place = self._place(name)
        self.problems.append(f"{problem[:-1]} ({place})." if place else problem)

    def _is_to_come(self, name: str) -> bool:
        ours = name in INTERNAL or name in public() or name.startswith(("__", *prefixes()))
        return ours and name not in self._variables

    def _place(self, name: str) -> str:
        key = next((key for key in self._variables if key == name), name)
        return origin(self._variables[name], key)
