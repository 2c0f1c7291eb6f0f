"""Writing a log, as the supervisor of a job does, in the layout of ``layout.py``.

Standard library only and cheap to import, as is ``LogView``, which reads what is written here.
A job that prints must never fail nor wait because of its log: a full or broken disk and a reached
limit cost bytes, which are counted, and show as gaps.
"""

import os
from contextlib import suppress
from pathlib import Path

from model_training.logs.index import IndexWriter
from model_training.logs.layout import DISK_FULL, Gap, Piece, gaps_path, index_path, log_path
from model_training.logs.view import LogView

__all__ = ["LOG_LIMIT", "SEGMENT_SIZE", "Gap", "LogView", "Piece", "SegmentWriter"]

LOG_LIMIT = 4 << 30  # bytes kept of one log
SEGMENT_SIZE = 16 << 20  # bytes; the unit in which a log that reached its limit loses bytes


class SegmentWriter:
    """Appends to a log. One writer at a time; readers need no arrangement with it."""

    def __init__(
        self, folder: Path, *, limit: int = LOG_LIMIT, segment_size: int = SEGMENT_SIZE
    ) -> None:
        """Open ``folder``, made if need be, to go on behind what is there.

        Args:
            folder: holds this log alone.
            limit: bytes kept. Beyond it whole segments go, from the second on.
            segment_size: bytes. At most a quarter of ``limit`` is used, so that the limit can
                hold while the first and the newest segment stay.

        Raises:
            OSError: the folder cannot be made, read or written.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self._limit = limit
        self._segment_size = max(1, min(segment_size, limit // 4))
        view = LogView(folder)
        self._finished = view.segments()
        self._position = view.end
        self._time_ns = view.time_at(self._position)
        self._kept = sum(end - start for start, end in self._finished)
        self._current: _Segment | None = None
        self._lost_from: int | None = None  # set while bytes are lost
        self._lost_because = ""
        self._unwritten_gaps = b""
        self._unsynced: set[int] = set()
        if self._finished:
            start, _ = self._finished.pop()
            self._open(start)

    @property
    def position(self) -> int:
        """The offset after the last byte, lost ones included."""
        return self._position

    def write(self, data: bytes | memoryview, time_ns: int) -> None:
        """Append; readers see it on return.

        Times (ns since 1970) never go back within a log: an earlier one is moved up. Bytes that
        the disk does not take are counted and become a gap, and nothing is raised.
        """
        rest = memoryview(data).cast("B")
        if len(rest):
            self._time_ns = max(self._time_ns, time_ns)
        while len(rest):
            try:
                rest = rest[self._write_some(rest) :]
            except OSError as error:
                self._lose(len(rest), error)
                return
            self._end_loss()
            self._drop_middle()

    def note_loss(self, reason: str) -> None:
        """Bytes are missing here, and nobody knows how many: a gap of one offset stands for them.

        It shows with the next bytes, or once the log is closed.
        """
        self._begin_loss(reason)
        self._position += 1

    def close(self) -> None:
        """Bring all of it to the disk, a gap at the end too. The second time it does nothing.

        Raises:
            OSError: the disk is broken. A full one raises nothing.
        """
        try:
            if self._lost_from is not None:
                self._open(self._position)  # an empty segment: the hole before it is the gap
                self._end_loss()
            self._sync()
        except OSError as error:
            if error.errno not in DISK_FULL:
                raise
        finally:
            if self._current is not None:
                self._current.close()
                self._current = None

    def _write_some(self, data: memoryview) -> int:
        segment = self._current
        if segment is None or self._lost_from is not None or segment.size >= self._segment_size:
            segment = self._open(self._position)
        written = segment.write(data[: self._segment_size - segment.size], self._time_ns)
        self._position += written
        self._kept += written
        return written

    def _open(self, start: int) -> "_Segment":
        opened = _Segment(self._folder, start)
        if self._current is not None:
            self._finished.append((self._current.start, self._current.end))
            self._current.close()
        self._current = opened
        self._unsynced.add(start)
        return opened

    def _lose(self, count: int, error: OSError) -> None:
        is_full = error.errno in DISK_FULL
        self._begin_loss("disk full" if is_full else f"write failed: {error.strerror}")
        self._position += count

    def _begin_loss(self, reason: str) -> None:
        if self._current is not None and self._current.size == 0:
            # Its name is an offset that the next bytes to succeed will not have.
            self._current.close()
            self._remove(self._current.start)
            self._current = None
        if self._lost_from is None:
            self._lost_from, self._lost_because = self._position, reason
        elif reason not in self._lost_because:
            self._lost_because += f", {reason}"

    def _end_loss(self) -> None:
        if self._lost_from is not None and self._current is not None:
            start, self._lost_from = self._lost_from, None
            self._note_gap(start, self._current.start, self._lost_because)
        elif self._unwritten_gaps:
            self._write_gaps()

    def _drop_middle(self) -> None:
        while self._kept > self._limit and len(self._finished) > 1:
            start, end = self._finished.pop(1)
            self._note_gap(start, end, "log limit")
            self._remove(start)
            self._kept -= end - start

    def _remove(self, start: int) -> None:
        # What a broken disk keeps is no gap; no byte is written to it again.
        with suppress(OSError):
            log_path(self._folder, start).unlink()
            index_path(self._folder, start).unlink(missing_ok=True)
        self._unsynced.discard(start)

    def _note_gap(self, start: int, end: int, reason: str) -> None:
        self._unwritten_gaps += f"{start} {end} {reason}\n".encode()
        self._write_gaps()

    def _write_gaps(self) -> None:
        """Write down why; what the disk does not take is tried again with the next bytes."""
        with suppress(OSError):
            fd = os.open(gaps_path(self._folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                size = os.fstat(fd).st_size
                if os.write(fd, self._unwritten_gaps) < len(self._unwritten_gaps):
                    os.ftruncate(fd, size)
                    return
                self._unwritten_gaps = b""
            finally:
                os.close(fd)

    def _sync(self) -> None:
        paths = [path(self._folder, s) for s in self._unsynced for path in (log_path, index_path)]
        for path in [*paths, gaps_path(self._folder), self._folder]:
            try:
                fd = os.open(path, os.O_RDONLY)
            except FileNotFoundError:
                continue  # most logs have no gaps
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
        self._unsynced.clear()


class _Segment:
    """The segment that is being written. ``start`` and ``end`` are offsets, ``size`` bytes."""

    def __init__(self, folder: Path, start: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._log = os.open(log_path(folder, start), flags, 0o600)
        self.start = start
        self.size = os.fstat(self._log).st_size
        try:
            self._index = IndexWriter(index_path(folder, start), self.end)
        except OSError:
            os.close(self._log)
            if self.size == 0:
                log_path(folder, start).unlink()
            raise

    @property
    def end(self) -> int:
        return self.start + self.size

    def write(self, data: memoryview, time_ns: int) -> int:
        """The number of bytes that were written: fewer when the disk fills up."""
        self._index.append(self.end, time_ns)
        written = os.write(self._log, data)
        self.size += written
        return written

    def close(self) -> None:
        os.close(self._log)
        self._index.close()
