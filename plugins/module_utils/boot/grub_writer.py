"""Changes GRUB's settings, menu and environment block; an interruption leaves a node that boots."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ansible_collections.xpu.fleet.plugins.module_utils.boot.files import BLOCK, DROP_IN, MENU, BootError, BootFiles
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub import Grub
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_entry import MenuError
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_menu import Menu
from ansible_collections.xpu.fleet.plugins.module_utils.boot.grub_settings import BlockError, menu_quote, shell_quote
from ansible_collections.xpu.fleet.plugins.module_utils.system.durable import (
    flush,
    put_in_place,
    write_back,
    write_durably,
)

HEADING = "# Written by xpu.fleet; changes are overwritten.\n"


def drop_in(path: str, panic: int) -> str:
    """Return the settings that make an entry the default; its kernel reboots ``panic`` seconds after a panic."""
    lines = [f"GRUB_DEFAULT={shell_quote(menu_quote(path))}\n"]
    if panic:
        lines.append(f'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX panic={panic}"\n')
    return HEADING + "".join(lines)


class GrubWriter:
    """Writes GRUB's files that a Grub has read."""

    def __init__(self, place: BootFiles, grub: Grub) -> None:
        self._place = place
        self._grub = grub

    def set_default(self, text: str, release: str, panic: str, before: Callable[[], None]) -> None:
        """Write settings and a menu that boots a kernel by default; BEFORE runs before the new menu is in place."""

        def check(menu: Menu) -> None:
            self._check_default(menu, release, panic)
            before()

        with self._drop_in_written(text):
            self._generate(check)

    def unset_default(self, release: str = "") -> None:
        """Remove the settings, and generate the menu from the other ones; it boots RELEASE, unless ""."""

        def check(menu: Menu) -> None:
            default = menu.default_entry()
            if release and default.release != release:
                raise MenuError(f"without /{DROP_IN} the default is {default} and not {release}")

        path = self._place.root / DROP_IN
        if path.exists():
            # The file stays, without settings, until the menu is generated: after an interruption the next run sees it.
            with self._drop_in_written(HEADING):
                self._generate(check)
            path.unlink()
            flush(path.parent)

    @contextmanager
    def _drop_in_written(self, text: str) -> Iterator[None]:
        """Write the settings, and restore the former file if the following step fails."""
        path = self._place.root / DROP_IN
        before = path.read_bytes() if path.exists() else None
        write_durably(path, text.encode())
        try:
            yield
        except BaseException:
            if before is None:
                path.unlink(missing_ok=True)
                flush(path.parent)
            else:
                write_durably(path, before)
            raise

    def _generate(self, check: Callable[[Menu], None]) -> None:
        """Generate the menu beside the present one, check it, and only then replace that."""
        target = self._place.followed(MENU)
        fresh = target.with_name(f"{target.name}.xpu-fleet")
        leftovers = [fresh, fresh.with_name(f"{fresh.name}.new")]
        try:
            for path in leftovers:
                path.unlink(missing_ok=True)
            self._place.checked_run(["grub-mkconfig", "-o", str(fresh)])
            if not fresh.is_file():
                raise BootError("grub-mkconfig made no menu")
            self._place.checked_run(["grub-script-check", str(fresh)])
            try:
                check(self._grub.parsed(fresh.read_text(encoding="utf-8", errors="surrogateescape")))
            except MenuError as error:
                raise BootError(f"GRUB's new menu is wrong, so the present menu stays: {error}") from error
            if target.exists():
                fresh.chmod(target.stat().st_mode & 0o777)
            put_in_place(fresh, target)
            write_back(target.parent)
        finally:
            for path in leftovers:
                path.unlink(missing_ok=True)

    def _check_default(self, menu: Menu, release: str, panic: str) -> None:
        """Raise MenuError if a menu does not boot this kernel."""
        wanted, default = menu.find(release), menu.default_entry()
        if default is not wanted:
            path = self._grub.origin_of("GRUB_DEFAULT")
            origin = self._place.shown(path) if path else ""
            if origin in ("", f"/{DROP_IN}"):
                origin = menu.default_origin() or "another file"
            raise MenuError(f"{origin} overrides GRUB_DEFAULT of /{DROP_IN}: the default is {default} and not {wanted}")
        if panic and wanted.argument("panic") != panic:
            path = self._grub.origin_of("GRUB_CMDLINE_LINUX")
            origin = self._place.shown(path) if path else "another file"
            found = wanted.argument("panic")
            raise MenuError(
                f"the entry {wanted} has {f'panic={found}' if found else 'no panic='} instead of panic={panic}; "
                f"GRUB_CMDLINE_LINUX was set last by {origin}"
            )

    def set_next_entry(self, path: str) -> None:
        """Set or remove the entry of the next boot, in place: GRUB writes to the file's existing blocks."""
        block = self._grub.block
        if block.variables.get("next_entry", "") == path:
            return
        if path:
            block.set("next_entry", path)
        else:
            block.unset("next_entry")
        try:
            content = block.content()
        except BlockError as error:
            raise BootError(f"/{BLOCK}: {error}") from error
        file = self._place.root / BLOCK
        if not file.exists():
            write_durably(file, content)
        else:
            with file.open("r+b") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
        write_back(file.parent)
