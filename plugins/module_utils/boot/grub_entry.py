"""An entry of GRUB's menu, and the kernel that it boots."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

#: Arguments of a kernel that make its boot an unusual one. systemd as init is usual: some put that on every
#: line.
_SYSTEMD = r"(/usr)?/(lib/systemd/systemd|bin/systemd|bin/init|sbin/init)"
_SPECIAL_ARGUMENTS = re.compile(
    rf"^(single|recovery|rescue|emergency|s|S|1|init=(?!{_SYSTEMD}$).*|rdinit=(?!/init$).*|(rd\.)?break(=.*)?"
    r"|(rd\.)?systemd\.unit=(rescue|emergency)(\.target)?)$"
)
KERNEL_FILE = re.compile(r"^(?:vmlinu[xz]|kernel|bzImage)-(?P<release>.+)$")
ENTRY_ID = re.compile(
    r"^(?:xen-)?gnulinux-(?!simple-|advanced-)(?P<release>.+?)-(?P<kind>advanced|recovery|init-[^-]+)(?:-|$)"
)


class MenuError(FleetError):
    """The menu or the settings are malformed; the message is for a person."""


@dataclass(frozen=True)
class Entry:
    """An entry or a submenu of the menu."""

    title: str
    identifier: str  # "" if the menu gives none; GRUB takes the title then
    parents: tuple[Entry, ...] = ()
    submenu: bool = False
    conditional: bool = False  # only GRUB knows whether it exists
    unrestricted: bool = False
    kind: str = "other"  # linux, xen or other (another system, firmware, a tool)
    kernels: tuple[str, ...] = ()  # as the menu names them
    initrds: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()  # of the kernel, without those that only GRUB knows
    children: tuple[Entry, ...] = ()
    line: int = 0

    @property
    def path(self) -> str:
        """Return what GRUB_DEFAULT and next_entry take: ids, or titles without an id, from the top down."""
        names = [entry.identifier or entry.title for entry in (*self.parents, self)]
        return ">".join(name.replace(">", ">>") for name in names)

    @property
    def release(self) -> str:
        """Return the kernel release that it boots: from the kernel's file name, else from its id; "" if unknown."""
        for kernel in self.kernels:
            match = KERNEL_FILE.match(kernel.rsplit("/", 1)[-1])
            if match:
                return match["release"]
        match = ENTRY_ID.match(self.identifier)
        return match["release"] if match and not self.submenu else ""

    @property
    def id_release(self) -> str:
        """Return the release that the id of a normal entry names, "" for other ids."""
        match = ENTRY_ID.match(self.identifier)
        return match["release"] if match else ""

    @property
    def foreign(self) -> bool:
        """Tell whether os-prober wrote it for another installation."""
        return any(
            entry.identifier.startswith("osprober-") or re.search(r" \(\S+ /dev/\S+\)( |$)", entry.title)
            for entry in (*self.parents, self)
        )

    @property
    def recovery(self) -> bool:
        """Tell whether it boots a recovery mode or another init than the normal one."""
        match = ENTRY_ID.match(self.identifier)
        if match and match["kind"] != "advanced":
            return True
        return "recovery mode" in self.title or any(_SPECIAL_ARGUMENTS.match(word) for word in self.arguments)

    def argument(self, name: str) -> str:
        """Return the value of the last NAME=value on the kernel's command line, "" without one."""
        values = [word.partition("=")[2] for word in self.arguments if word.startswith(f"{name}=")]
        return values[-1] if values else ""

    def __str__(self) -> str:
        return f"'{' > '.join(entry.title for entry in (*self.parents, self))}' (line {self.line})"
