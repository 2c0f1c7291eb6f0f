"""Folders that a job made: walked and removed without trust in them.

A job may nest folders deeper than any recursion or path reaches, put links anywhere, take away
its own rights, and move things while we look. So the walk is a loop that holds one descriptor at
a time: it goes down by names that are no links, and up by ``..``, where it checks that it came
out where it went in.
"""

import contextlib
import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RIGHTS = 0o700


class Folder(NamedTuple):
    """A folder of the walk, to be used before the next one is asked for."""

    parts: list[str]
    """the names that lead to it from the top; empty for the top itself"""
    descriptor: int
    files: list[str]
    """everything in it that is no folder, links too"""
    folders: list[str]


class _Level(NamedTuple):
    identity: tuple[int, int]
    files: list[str]
    folders: list[str]
    waiting: list[str]


def walk(top: Path, *, open_up: bool = False) -> Iterator[Folder]:
    """Every folder below ``top``, then ``top``: what is in a folder comes before itself.

    Folders that cannot be read, or are gone when their turn comes, are left out.

    Args:
        top: a folder, not a link to one.
        open_up: give the owner back the rights to each folder.

    Raises:
        OSError: ``top`` cannot be read, or folders were moved while they were walked.
    """
    descriptor, level = _enter(str(top), None, open_up=open_up)
    levels, parts = [level], list[str]()
    try:
        while True:
            level = levels[-1]
            if level.waiting:
                name = level.waiting.pop()
                with contextlib.suppress(OSError):  # gone meanwhile, or closed to us
                    inner, level = _enter(name, descriptor, open_up=open_up)
                    os.close(descriptor)
                    descriptor = inner
                    parts.append(name)
                    levels.append(level)
                continue
            yield Folder(parts, descriptor, level.files, level.folders)
            levels.pop()
            if not levels:
                return
            parts.pop()
            outer = _leave(descriptor, levels[-1].identity)
            os.close(descriptor)
            descriptor = outer
    finally:
        os.close(descriptor)


def remove(top: Path, is_over: Callable[[], bool] = lambda: False) -> None:
    """Remove a file or a tree, as much of it as can be; nothing happens if it is not there.

    Args:
        top: what to remove.
        is_over: asked before each step, whether to leave the rest to another time.

    Raises:
        InterruptedError: something is left because ``is_over`` said so.
        OSError: something of it cannot be removed.
    """
    if not top.is_dir() or top.is_symlink():
        top.unlink(missing_ok=True)
        return
    failed: OSError | None = None
    with contextlib.suppress(FileNotFoundError):  # another thread was at it too
        for folder in walk(top, open_up=True):
            failed = _empty(folder, is_over) or failed
        top.rmdir()
    if failed:
        raise failed


def _empty(folder: Folder, is_over: Callable[[], bool]) -> OSError | None:
    """Remove what is in it; why something could not be, if so."""
    failed: OSError | None = None
    for names, drop in ((folder.files, os.unlink), (folder.folders, os.rmdir)):
        for name in names:
            if is_over():
                raise InterruptedError(errno.EINTR, "the removal goes on another time", name)
            try:
                drop(name, dir_fd=folder.descriptor)
            except FileNotFoundError:
                pass  # another thread was at it too
            except OSError as error:
                failed = failed or error
    return failed


def _enter(name: str, outer: int | None, *, open_up: bool) -> tuple[int, _Level]:
    try:
        descriptor = os.open(name, _FOLDER, dir_fd=outer)
    except PermissionError:
        if not open_up:
            raise
        _give_rights(name, outer)
        descriptor = os.open(name, _FOLDER, dir_fd=outer)
    try:
        if open_up and os.fstat(descriptor).st_mode & _RIGHTS != _RIGHTS:
            os.fchmod(descriptor, _RIGHTS)
        os.stat(".", dir_fd=descriptor)  # without the right to search there is no way back
        return descriptor, _look(descriptor)
    except OSError:
        os.close(descriptor)
        raise


def _give_rights(name: str, outer: int | None) -> None:
    # Held by a descriptor, it cannot become a link between the look and the change.
    held = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=outer)
    try:
        Path(f"/proc/self/fd/{held}").chmod(_RIGHTS)
    finally:
        os.close(held)


def _look(descriptor: int) -> _Level:
    files: list[str] = []
    folders: list[str] = []
    with os.scandir(descriptor) as entries:
        for entry in entries:
            (folders if entry.is_dir(follow_symlinks=False) else files).append(entry.name)
    return _Level(_identity(descriptor), files, folders, folders.copy())


def _leave(inner: int, expected: tuple[int, int]) -> int:
    outer = os.open("..", _FOLDER, dir_fd=inner)
    if _identity(outer) != expected:
        os.close(outer)
        raise OSError(errno.ESTALE, "folders were moved while they were walked")
    return outer


def _identity(descriptor: int) -> tuple[int, int]:
    found = os.fstat(descriptor)
    return found.st_dev, found.st_ino
