"""The stacks' data, read once for all nodes."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible_collections.xpu.fleet.plugins.plugin_utils.variables.specs import read


@functools.cache
def stack_definitions(directory: Path) -> dict[str, dict[str, Any]]:
    """Return the definitions of all stacks by name. Raises AnsibleError without any."""
    definitions = {path.stem: read(path)["stack_definition"] for path in sorted(directory.glob("*.yml"))}
    if not definitions:
        raise AnsibleError(f"There is no stack data in {directory}.")
    return definitions
