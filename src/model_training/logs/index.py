"""When the bytes of a segment were written: records of 16 bytes, found by halving.

A record is written before its bytes, so that a reader never meets a byte whose time is still to
come. It may therefore be the last thing on the disk after a crash, without its bytes, or torn.
"""

import os
import struct
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Self

from model_training.logs.layout import DISK_FULL

_RECORD = struct.Struct("<QQ")  # offset of the first byte, time in ns since 1970
_BLOCK = 4096 * _RECORD.size  # bytes read at a time


class Write(NamedTuple):
    """Where a write began, and when it was, in ns since 1970."""

    offset: int
    time_ns: int


class IndexWriter:
    """Appends to the index of one segment."""

    def __init__(self, path: Path, end: int) -> None:
        """Open, or make, the index; cut what a crash left torn or without its bytes.

        Args:
            path: of the index.
            end: the offset after the segment's last byte.
        """
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._time_ns = -1
        self._size = os.fstat(self._fd).st_size // _RECORD.size * _RECORD.size
        while self._size and self._last_offset() > end:
            self._size -= _RECORD.size
        os.ftruncate(self._fd, self._size)

    def append(self, offset: int, time_ns: int) -> None:
        """Note a write before it is made; one at the same time as the last needs no record.

        Without room for the record, the bytes have the time of those before them. Only the
        first record of a segment is needed.

        Raises:
            OSError: the disk is broken, or has no room for the first record.
        """
        if time_ns == self._time_ns:
            return
        try:
            written = os.pwrite(self._fd, _RECORD.pack(offset, time_ns), self._size)
        except OSError as error:
            if self._size == 0 or error.errno not in DISK_FULL:
                raise
            return
        if written == _RECORD.size:  # else the next record is written over the torn one
            self._size += _RECORD.size
            self._time_ns = time_ns

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _last_offset(self) -> int:
        return _RECORD.unpack(os.pread(self._fd, _RECORD.size, self._size - _RECORD.size))[0]


class IndexReader:
    """Reads the index of one segment, as it was when it was opened; a missing one is empty."""

    def __init__(self, path: Path) -> None:
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._fd = -1
        self._count = os.fstat(self._fd).st_size // _RECORD.size if self._fd >= 0 else 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def first(self) -> Write | None:
        """The first write."""
        return self._record(0) if self._count else None

    def last_until(self, offset: int) -> Write | None:
        """The write that holds the byte at ``offset``."""
        after = self._after(offset)
        return self._record(after - 1) if after else None

    def since(self, time_ns: int) -> Write | None:
        """The first write at ``time_ns`` or later."""
        at = bisect_left(range(self._count), time_ns, key=lambda i: self._record(i).time_ns)
        return self._record(at) if at < self._count else None

    def between(self, start: int, end: int) -> Iterator[Write]:
        """The writes that began after offset ``start`` and before ``end``, in order."""
        at = self._after(start) * _RECORD.size
        while block := os.pread(self._fd, _BLOCK, at) if self._count else b"":
            whole = len(block) // _RECORD.size * _RECORD.size
            for record in _RECORD.iter_unpack(block[:whole]):
                if record[0] >= end:
                    return
                yield Write(*record)
            if whole < _BLOCK:
                return
            at += whole

    def _after(self, offset: int) -> int:
        """The number of writes that began at ``offset`` or before."""
        return bisect_right(range(self._count), offset, key=lambda i: self._record(i).offset)

    def _record(self, number: int) -> Write:
        record = os.pread(self._fd, _RECORD.size, number * _RECORD.size)
        return Write(*_RECORD.unpack(record))
