"""The supported versions of ansible-core."""

from __future__ import annotations

from ansible.errors import AnsibleError
from ansible.release import __version__

#: The same as in meta/runtime.yml, about which ansible-core only warns.
OLDEST = (2, 17)


def require_core(version: str = __version__) -> None:
    """Raise AnsibleError in one sentence if ansible-core is too old."""
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        raise AnsibleError(
            f"This is ansible-core {version}, and xpu.fleet needs {OLDEST[0]}.{OLDEST[1]} or newer: install one "
            "(it needs Python 3.10 or newer on this machine)."
        )
