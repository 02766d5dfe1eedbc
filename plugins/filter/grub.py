"""Filters about GRUB's menu."""

from __future__ import annotations

from collections.abc import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.xpu.fleet.plugins.module_utils.grub import MenuError, menu_path


def grub_menu_path(configuration: str, release: str) -> str:
    """Return the id path of a kernel release in the text of grub.cfg."""
    try:
        return menu_path(configuration, release)
    except MenuError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """Return filters by name."""
        return {"grub_menu_path": grub_menu_path}
