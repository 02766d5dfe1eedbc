"""GRUB's menu: which entry it would boot, and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Optional

from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_entry import Entry, MenuError
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_interpreter import Interpreter

#: The range of an entry's number in GRUB: an int of C.
_TOO_LARGE = 2**31
_WHO_ASKS = "someone has to answer at the console"


class Menu:
    """A menu as GRUB would see it at the next boot with the given environment block."""

    def __init__(
        self, text: str, block: Optional[Mapping[str, str]] = None, sources: Optional[Mapping[str, str]] = None
    ) -> None:
        """Follow the menu of TEXT; SOURCES are files that it may read, by name. Raises MenuError."""
        self._text = text
        found = Interpreter(text, block, sources or {})
        self.entries = found.entries
        self.boot_loader_spec = found.boot_loader_spec
        self.saved = found.saved
        self._timeouts = found.timeouts
        self._default_line = found.default_line
        #: Selects the entry to boot: an id path, a title or a number; None if only GRUB can know.
        self.default: Optional[str] = found.variables.get("default", "")
        self.superusers: Optional[str] = found.variables.get("superusers", "")

    def all_entries(self) -> Iterator[Entry]:
        """Yield every bootable entry, submenus' too, from top to bottom."""

        def walk(entries: tuple[Entry, ...]) -> Iterator[Entry]:
            for entry in entries:
                if entry.submenu:
                    yield from walk(entry.children)
                else:
                    yield entry

        return walk(self.entries)

    def releases(self) -> list[str]:
        """Return the kernel releases of this system's own normal entries, in the menu's order."""
        own = (entry for entry in self.all_entries() if entry.kind == "linux" and not entry.foreign)
        return list(dict.fromkeys(entry.release for entry in own if entry.release and not entry.recovery))

    def find(self, release: str) -> Entry:
        """Return the normal entry of a kernel release, by id, else by title, else by its kernel.

        Raises MenuError if there is none, or several equally good ones.
        """
        if self.boot_loader_spec:
            raise MenuError(
                "this menu takes its entries from /boot/loader/entries (blscfg), a format that this collection does "
                "not support"
            )
        own = [
            entry for entry in self.all_entries() if entry.kind == "linux" and not entry.foreign and not entry.recovery
        ]
        # A copy of 10_linux under another name repeats the ids; GRUB takes the first of equal ones.
        by_id = list({entry.path: entry for entry in reversed(own) if entry.id_release == release}.values())[::-1]
        named = [entry for entry in own if not entry.id_release and entry.release == release]
        # The menu's top entry stands for the newest kernel: its id stays while its kernel changes.
        named = [entry for entry in named if not entry.identifier.startswith("gnulinux-simple")]
        by_title = [entry for entry in named if re.search(rf"(^|\s){re.escape(release)}(\s|$)", entry.title)]
        for candidates in (by_id, by_title, named):
            if len(candidates) > 1:
                raise MenuError(
                    f"GRUB's menu has several entries of kernel {release}: "
                    + " and ".join(f"{entry}" for entry in candidates)
                )
            if candidates:
                return self._checked(candidates[0], release)
        special = [entry for entry in self.all_entries() if entry.release == release and entry.recovery]
        raise MenuError(
            f"GRUB's menu has no entry of kernel {release}; "
            f"it has {', '.join(self.releases()) or 'no Linux entry of this system'}"
            + (f" ({special[0]} boots a recovery mode or another init)" if special else "")
        )

    def _checked(self, entry: Entry, release: str) -> Entry:
        loaded = {Entry("", "", kernels=(kernel,)).release for kernel in entry.kernels}
        if loaded != {release}:
            raise MenuError(
                f"the entry {entry} is named after kernel {release} but loads {' and '.join(entry.kernels)}"
            )
        if self.resolve(entry.path) is not entry:
            raise MenuError(f"GRUB would read '{entry.path}' as another entry than {entry}")
        return entry

    def resolve(self, default: str) -> Optional[Entry]:
        """Return the entry that GRUB boots for a value of ``default``; None if that depends on the machine."""
        entries, rest = self.entries, default
        while entries:
            name, rest = _first_name(rest)
            entry = _chosen(entries, name)
            if entry is None or not entry.submenu:
                return entry
            entries = entry.children
        return None

    def default_entry(self) -> Entry:
        """Return the default entry. Raises MenuError if it cannot be known."""
        if self.default is None:
            raise MenuError("the default entry of GRUB's menu depends on values that only GRUB knows")
        entry = self.resolve(self.default)
        if entry is None:
            raise MenuError(f"GRUB's default '{self.default}' leads to an entry that only GRUB can determine")
        return entry

    def has_named(self, default: str) -> bool:
        """Tell whether the menu has the entry that ``default`` names; if not, GRUB boots the first entry."""
        entries, rest = self.entries, default
        while rest:
            name, rest = _first_name(rest)
            found = _named(entries, name)
            if found is None:
                return False
            entries = found.children
        return True

    def waits(self) -> str:
        """Return why this menu may wait for a person, "" if it does not."""
        if not self._timeouts:
            return "GRUB's menu sets no timeout, so it waits until " + _WHO_ASKS
        if any(timeout.startswith("-") for timeout in self._timeouts):
            return "GRUB's menu has a timeout of -1, so it waits until " + _WHO_ASKS
        return ""

    def asks_password(self, entry: Entry) -> str:
        """Return why GRUB would ask for a password before it boots an entry, "" if it does not."""
        if self.superusers == "" or all(level.unrestricted for level in (*entry.parents, entry)):
            return ""
        return f"GRUB's menu has passwords, and the entry {entry} is not --unrestricted, so {_WHO_ASKS}"

    def default_origin(self) -> str:
        """Return the file under /etc/grub.d that set the default last, as grub-mkconfig marks it; "" if unknown."""
        origin = ""
        for line in self._text.splitlines()[: self._default_line]:
            match = re.match(r"### (BEGIN|END) (\S+) ###$", line)
            if match:
                origin = match[2] if match[1] == "BEGIN" else ""
        return origin


def _first_name(path: str) -> tuple[str, str]:
    """Split the first name off a path; '>>' in a name is one '>'."""
    match = re.match(r"(?P<name>(?:[^>]|>>)*)(?:>(?P<rest>.*))?$", path, re.DOTALL)
    return (match["name"].replace(">>", ">"), match["rest"] or "") if match else (path, "")


def _number(name: str) -> Optional[int]:
    """Return the number that GRUB reads in a name as C's strtoul does, of any base; None without one.

    GRUB ignores blanks around it, and stops at the first character that is no digit. -1 stands for one that is
    too large.
    """
    match = re.match(r"[ \t\n\v\f\r]*(?:0x(?P<hex>[0-9a-fA-F]+)|(?P<octal>0[0-7]+)|(?P<decimal>[0-9]+))", name)
    if not match:
        return None
    digits = match["hex"] or match["octal"] or match["decimal"]
    number = int(digits, 16 if match["hex"] else 8 if match["octal"] else 10)
    return number if number < _TOO_LARGE else -1


def _named(entries: tuple[Entry, ...], name: str) -> Optional[Entry]:
    """Return the entry that a number, title or id names."""
    number = _number(name)
    if number is not None:
        return entries[number] if 0 <= number < len(entries) else None
    return _titled(entries, name)


def _titled(entries: tuple[Entry, ...], name: str) -> Optional[Entry]:
    return next((entry for entry in entries if name in (entry.title, entry.identifier or entry.title)), None)


def _chosen(entries: tuple[Entry, ...], name: str) -> Optional[Entry]:
    """Return the entry that GRUB takes for a name: the first if no entry has it; None if it depends on the machine."""
    number, titled = _number(name), _titled(entries, name)
    entry = (_named(entries, name) or entries[0]) if number is not None else titled or entries[0]
    by_number = number is not None or titled is None
    if (
        number is not None
        and not re.fullmatch(r"\s*(0x[0-9a-fA-F]+|[0-9]+)\s*", name)
        and (titled or entries[0]) is not entry
    ):
        return None  # more than a number: some versions of GRUB take the number at its beginning
    if entry.conditional or (by_number and any(other.conditional for other in entries[: entries.index(entry)])):
        return None
    return entry
