"""Directories that root fills inside directories that other users may be able to write to.

Whoever can write to a directory can replace anything in it by a link, at any moment. So this code uses no path
twice: it opens a directory once, without following a link, and then works with that descriptor. Content of a directory
that root owns and nobody else can write to is safe without more care.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Optional

from ansible_collections.xpu.fleet.plugins.module_utils.system.errors import FleetError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class NotOwnError(FleetError):
    """Something belongs to another user, or is a link; the message says what."""


def held(handle: int) -> Path:
    """Return a path of an open directory, for this process and its children."""
    return Path(f"/proc/{os.getpid()}/fd/{handle}")


def is_own(found: os.stat_result) -> bool:
    """Tell whether only this user (and root) can write to something."""
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & _OTHERS_WRITE


def discard(path: Path) -> None:
    """Remove whatever is at a path below a held directory; a link itself, not its target."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)  # it uses descriptors, and follows no link
        else:
            path.unlink()
    except FileNotFoundError:
        pass


class Place:
    """The place of a directory, and the staging directory beside it."""

    def __init__(self, directory: Path) -> None:
        """Nothing is opened or made yet."""
        self.directory = directory
        self.gathering = f".{directory.name}.incoming"

    @cached_property
    def _base(self) -> Path:
        """The directory around it, made if missing. The operator vouches for the way there."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        return held(os.open(self.directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    @cached_property
    def stored(self) -> Optional[Path]:
        """The present content, None if there is none. Raises NotOwnError if others can write to it."""
        if not self.directory.parent.is_dir():
            return None
        return self._opened(self.directory.name)

    @cached_property
    def incoming(self) -> Path:
        """The staging directory: this user's own is kept, anything else is replaced by an empty one."""
        with suppress(NotOwnError):
            kept = self._opened(self.gathering)
            if kept is not None:
                return kept
        discard(self._base / self.gathering)
        (self._base / self.gathering).mkdir(mode=0o755)
        made = self._opened(self.gathering)
        if made is None or any(made.iterdir()):
            raise NotOwnError(f"{self.directory.parent} is written to by another user at this moment")
        return made

    def begin_anew(self) -> Path:
        """Return an empty staging directory."""
        self.forget()
        return self.incoming

    def forget(self) -> None:
        """Remove the staging directory."""
        self.__dict__.pop("incoming", None)
        discard(self._base / self.gathering)

    def swap_in(self, content: Path, name: str) -> None:
        """Put ``content``, held, which is at ``name`` beside the place, in place of the present content.

        The former content is removed last. Raises NotOwnError if something else was put there.
        """
        content.chmod(0o755)
        place, replaced = self._base / self.directory.name, self._base / f".{self.directory.name}.replaced"
        discard(replaced)
        with suppress(FileNotFoundError):
            place.rename(replaced)
        (self._base / name).rename(place)
        if not os.path.samestat(place.lstat(), content.stat()):
            raise NotOwnError(f"{self.directory} was replaced by another user at this moment")
        discard(replaced)
        self.__dict__.pop("stored", None)
        self.__dict__.pop("incoming", None)

    def _opened(self, name: str) -> Optional[Path]:
        try:
            handle = os.open(self._base / name, _DIRECTORY)
        except FileNotFoundError:
            return None
        except (NotADirectoryError, OSError) as error:
            raise NotOwnError(
                f"{self.directory.with_name(name)} is a link, or no directory ({error.strerror})"
            ) from error
        if not is_own(os.fstat(handle)):
            os.close(handle)
            raise NotOwnError(f"{self.directory.with_name(name)} can be written to by another user")
        return held(handle)


def take_over(directory: Path, name: str, each: Callable[[str, Path], None]) -> Path:
    """Make root the owner of a tree that another user left in ``directory``, and report each file by its name in it.

    Nobody else may be able to write to ``directory`` itself. Refuses links, everything that is neither file nor
    directory, and files with several names: they may be anybody's. Returns the held tree. Raises NotOwnError.
    """
    tree = _taken(directory / name, name)
    for path, inside in _walk(tree, ""):
        each(inside, path)
    return tree


def _walk(directory: Path, prefix: str) -> Iterator[tuple[Path, str]]:
    for path in sorted(directory.iterdir()):
        name = f"{prefix}{path.name}"
        if stat.S_ISDIR(path.lstat().st_mode):
            yield from _walk(_taken(path, name), f"{name}/")
        else:
            _taken(path, name)
            yield path, name


def _taken(path: Path, name: str) -> Path:
    """Make root the owner of a file or directory, and its only writer; return it, held if it is a directory."""
    if stat.S_ISLNK(path.lstat().st_mode):
        raise NotOwnError(f"a link, {name}, which is not taken over")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(handle)
    if stat.S_ISDIR(found.st_mode):
        os.fchown(handle, os.geteuid(), os.getegid())
        os.fchmod(handle, 0o755)
        return held(handle)
    try:
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise NotOwnError(f"{name}, which is no file of its own")
        os.fchown(handle, os.geteuid(), os.getegid())
        os.fchmod(handle, 0o644)
        if _is_written_to(handle):
            raise NotOwnError(f"{name}, which somebody still writes to")
    finally:
        os.close(handle)
    return path


def _is_written_to(handle: int) -> bool:
    """Tell whether any process has a file open for writing: the kernel grants a read lease only if not (fcntl(2))."""
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # a file system without leases
        return False
    return False
