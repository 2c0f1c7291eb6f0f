"""The small JSON files of a job folder: written whole or not at all.

A record is written beside its place, synced, renamed into it, and the folder synced, so that
after any crash there is the old record, the new one, or none. ``exit.json`` is the one that must
be written even on a full disk: its space is taken before the command starts.

Standard library only: the supervisor uses it too.
"""

import errno
import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any, cast

RESERVE_SIZE = 4096  # bytes; an exit record is some 400, its message is cut to MESSAGE_LIMIT
MESSAGE_LIMIT = 500  # characters; at most 3,000 bytes as JSON writes them

Record = dict[str, Any]


def read(path: Path) -> Record | None:
    """The record, or None where there is none.

    Raises:
        ValueError: the file is there and holds something else.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    return parse(text)


def parse(text: bytes) -> Record:
    """A JSON object.

    Raises:
        ValueError: it is something else.
    """
    value: object = json.loads(text)
    if not isinstance(value, dict):
        msg = "it is no JSON object"
        raise ValueError(msg)  # noqa: TRY004 - the content is wrong, not the caller
    return cast("Record", value)


def write(path: Path, record: Record) -> None:
    """Put the record in place, durably.

    Raises:
        OSError: it could not be written; what was there before is still there.
    """
    write_bytes(path, json.dumps(record).encode())


def write_bytes(path: Path, data: bytes) -> None:
    """The same for bytes."""
    new = path.with_name(path.name + ".new")
    try:
        _fill(new, data, os.O_CREAT | os.O_TRUNC)
        new.replace(path)
    except OSError:
        new.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_content(path: Path, data: bytes) -> None:
    """Write a file whose content is durable on return, but not its name.

    Raises:
        OSError: it could not be written; half of it may be there.
    """
    _fill(path, data, os.O_CREAT | os.O_TRUNC)


def write_unsynced(path: Path, data: bytes) -> None:
    """Write a file that can be made again after a crash.

    Raises:
        OSError: it could not be written; half of it may be there.
    """
    _fill(path, data, os.O_CREAT, sync=False)


def reserve(path: Path) -> None:
    """Take the disk space that ``write_reserved`` will need.

    Raises:
        OSError: there is no space.
    """
    _fill(_reserve_of(path), bytes(RESERVE_SIZE), os.O_CREAT)


def write_reserved(path: Path, record: Record) -> None:
    """Like ``write``, in the space that was taken before.

    Raises:
        OSError: it could not be written; there is no record.
    """
    data = json.dumps(record).encode()
    place = _reserve_of(path)
    _fill(place, data, os.O_CREAT)
    os.truncate(place, len(data))
    _fill(place, b"", 0)  # the new length is synced before the name points at it
    place.replace(path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    _sync(path, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make the content of a file durable."""
    _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def lock(path: Path) -> int | None:
    """A descriptor that holds the lock, or None if somebody else holds it. Close to let go."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except OSError:
        os.close(fd)
        raise
    return fd


def is_full(error: OSError) -> bool:
    """Whether the error says that there is no space, or that the quota is used up."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


def format_ns(moment: int) -> str:
    """Nanoseconds of the epoch as ``jobs.format_time`` writes a time."""
    seconds, rest = divmod(moment, 1_000_000_000)
    text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{text}.{rest // 1000:06d}Z"


def _reserve_of(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _fill(path: Path, data: bytes, flags: int, *, sync: bool = True) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(fd, left) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)
