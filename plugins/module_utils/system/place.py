"""Directories that root fills below one that other users may be able to write to.

Whoever can write to a directory can put a link in the place of anything in it, at any moment. So nothing here goes by a
path twice: a directory is opened once, without following a link, and is used as what was opened. What is in a directory
that is root's and that nobody else can write to is root's alone, and needs no more care.
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
    """Something is another user's, or leads elsewhere; the message says what."""


def held(handle: int) -> Path:
    """Return a path of an open directory, for this process and those that it starts."""
    return Path(f"/proc/{os.getpid()}/fd/{handle}")


def is_own(found: os.stat_result) -> bool:
    """Tell whether nobody but this user can write to something, and root, who can anywhere."""
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & _OTHERS_WRITE


def discard(path: Path) -> None:
    """Remove whatever is at a path below a held directory; of a link, the link."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)  # walks along descriptors, and follows nothing
        else:
            path.unlink()
    except FileNotFoundError:
        pass


class Place:
    """Where a directory is to be, with what is gathered for it beside it."""

    def __init__(self, directory: Path) -> None:
        """Take the place; nothing is opened or made yet."""
        self.directory = directory
        self.gathering = f".{directory.name}.incoming"

    @cached_property
    def _base(self) -> Path:
        """The directory around it, made where it lacks. The way there is the operator's."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        return held(os.open(self.directory.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))

    @cached_property
    def stored(self) -> Optional[Path]:
        """What is there, None where nothing is. Raises NotOwnError where it is not this user's alone."""
        if not self.directory.parent.is_dir():
            return None
        return self._opened(self.directory.name)

    @cached_property
    def incoming(self) -> Path:
        """Where new content is gathered: what is this user's alone stays, anything else goes for an empty one."""
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
        """Return an empty directory to gather in."""
        self.forget()
        return self.incoming

    def forget(self) -> None:
        """Remove what was gathered."""
        self.__dict__.pop("incoming", None)
        discard(self._base / self.gathering)

    def swap_in(self, content: Path, name: str) -> None:
        """Put ``content``, held, which is at ``name`` beside the place, in the place of what is there.

        What was there goes only afterwards. Raises NotOwnError where something else got there.
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
    """Make a tree that another user left in ``directory`` root's, and hand each file on, by its name in the tree.

    Nobody else may be able to write to ``directory`` itself. Links, and what else is neither file nor directory, are
    refused, as is a file that has another name too: it may be anybody's. Returns the held tree. Raises NotOwnError.
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
    """Make a file or directory root's, and nobody else's to write; return it, held where it is a directory."""
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
    """Tell whether a file is open for writing anywhere: a read lease is given only where it is not (fcntl(2))."""
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # a file system without leases
        return False
    return False
