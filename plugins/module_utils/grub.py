"""Finds the menu entry of a kernel in GRUB's configuration, by its stable id."""

from __future__ import annotations

import re

_ENTRY = re.compile(r"^\s*(?P<kind>submenu|menuentry)\s.*\{\s*$")
_ID = re.compile(r"""(?:\$menuentry_id_option|--id)\s+(?P<quote>['"]?)(?P<id>[^'"\s]+)(?P=quote)""")
_END = re.compile(r"^\s*\}\s*$")


class MenuError(ValueError):
    """The menu has no entry of the kernel."""


def menu_path(configuration: str, release: str) -> str:
    """Return the id path of a kernel release's normal entry in grub.cfg, for GRUB_DEFAULT: ``submenu-id>entry-id``.

    Ids, unlike titles and positions, stay the same when kernels come and go. Recovery entries are left out. Raises
    MenuError, naming the kernels of the menu, where the release is not among them.
    """
    path: list[str] = []  # ids of the open blocks
    found: list[str] = []
    for line in configuration.splitlines():
        if _ENTRY.match(line):
            match = _ID.search(line)
            path.append(match["id"] if match else "")
            if all(path) and re.match(rf"gnulinux-{re.escape(release)}-advanced(-|$)", path[-1]):
                return ">".join(path)
            found.append(path[-1])
        elif _END.match(line) and path:
            path.pop()
    kernels = [match[1] for entry in found for match in [re.match(r"gnulinux-(\d\S*?)-advanced", entry)] if match]
    raise MenuError(
        f"GRUB's menu has no entry of kernel {release}; it has {', '.join(kernels) or 'no Linux entry by id'}"
    )
