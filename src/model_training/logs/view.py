"""Reading a log by offset, by line and by time, while it is written or afterwards."""

import os
import re
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator
from pathlib import Path

from model_training.logs.index import IndexReader, Write
from model_training.logs.layout import (
    Gap,
    Piece,
    gaps_path,
    generation_path,
    index_path,
    log_path,
    segment_starts,
)

BLOCK = 64 << 10  # bytes that a reader holds in memory at a time; a slow one, two of them
_NOTED_GAP = re.compile(r"(\d+) (\d+) (.+)", re.ASCII)
_SCAN = 64 << 10  # bytes read at a time when lines are counted from the end


class LogView:
    """Reads a log: one that is being written, a finished, an empty or a missing one.

    Holds no open file, so that it costs nothing to keep and needs no closing. Not for use by
    two threads at once. All of it raises ``OSError`` if the disk cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names: list[str] = []
        self._starts: list[int] = []
        self._ends: list[int] = []

    @property
    def end(self) -> int:
        """The offset after the last byte there is; looked up on each access."""
        self._refresh()
        return self._ends[-1] if self._ends else 0

    @property
    def generation(self) -> int:
        """Another number once the log was collected anew: earlier positions mean nothing then."""
        try:
            return int(generation_path(self._folder).read_text())
        except FileNotFoundError:
            return 0

    def segments(self) -> list[tuple[int, int]]:
        """Start and end of each segment, in order; looked up on each call."""
        self._refresh()
        return list(zip(self._starts, self._ends, strict=True))

    def gaps(self) -> tuple[Gap, ...]:
        """What is missing, in order; looked up on each call."""
        self._refresh()
        holes = zip([0, *self._ends], self._starts, strict=False)
        return tuple(self._gap(end, start) for end, start in holes if end < start)

    def read(self, offset: int, size: int) -> Piece | Gap:
        """Up to ``size`` bytes from ``offset``; fewer before a gap, none at the end or beyond.

        At or within a gap: what is left of that gap.
        """
        if offset < 0:
            msg = f"an offset is never negative, and {offset} is"
            raise ValueError(msg)
        if not self._ends or offset + size > self._ends[-1]:
            self._refresh()
        while True:
            try:
                return self._read(offset, size)
            except FileNotFoundError:
                self._refresh()  # dropped since we looked: now a gap

    def blocks(self, start: int, end: int) -> Iterator[Piece | Gap]:
        """What there is from ``start`` to ``end``, in order, at most ``BLOCK`` bytes at a time.

        Stops early where the log ends.
        """
        while start < end:
            item = self.read(start, min(BLOCK, end - start))
            if isinstance(item, Gap):
                item = item._replace(end=min(item.end, end))
            elif not item.data:
                return
            yield item
            start = item.end

    def tail_offset(self, lines: int) -> int:
        """Where the last ``lines`` lines begin; the last one may lack its newline.

        Where a gap lies before such a line, the gap's start, as the line may begin in it. Reads
        backwards, 64 KiB at a time, so that neither a large log nor a long line matters.
        """
        end = self.end
        if lines < 1:
            return end
        for offset, data in self._backwards():
            stop = len(data)
            if offset + stop == end and data.endswith(b"\n"):
                stop -= 1  # it ends the last line and begins none
            count = data.count(b"\n", 0, stop)
            if count < lines:
                lines -= count
                continue
            for _ in range(lines):
                stop = data.rfind(b"\n", 0, stop)
            return offset + stop + 1
        return 0

    def offset_since(self, time_ns: int) -> int:
        """Where the first write at ``time_ns`` or later begins; the end if there is none.

        Where a gap lies before it, the gap's start, as nobody knows when those bytes were.
        """
        found = self.end
        for start, end in reversed(self.segments()):
            with IndexReader(index_path(self._folder, start)) as index:
                first, since = index.first(), index.since(time_ns)
            if first is None:
                continue
            found = since.offset if since is not None else end
            if first.time_ns < time_ns:
                break
        return found

    def time_at(self, offset: int) -> int:
        """When the byte at ``offset`` was written, in ns since 1970; 0 if nobody knows."""
        self._refresh()
        for start in reversed(self._starts[: bisect_right(self._starts, offset)]):
            with IndexReader(index_path(self._folder, start)) as index:
                write = index.last_until(offset)
            if write is not None:
                return write.time_ns
        return 0

    def writes(self, start: int, end: int) -> Generator[Write]:
        """The writes that hold the bytes from ``start`` to ``end``, in order, at least one.

        The first is the one that holds ``start``, and is said to begin there.
        """
        yield Write(start, self.time_at(start))
        first = max(0, bisect_right(self._starts, start) - 1)
        for segment in self._starts[first : bisect_left(self._starts, end)]:
            with IndexReader(index_path(self._folder, segment)) as index:
                yield from index.between(start, end)

    def _refresh(self) -> None:
        while True:
            names = self._list()
            try:
                if names == self._names and self._starts:
                    self._ends[-1] = self._end_of(self._starts[-1])  # only the last one grows
                else:
                    self._take(names)
            except FileNotFoundError:
                continue  # dropped between the listing and the look at its size
            return

    def _list(self) -> list[str]:
        try:
            return os.listdir(self._folder)  # noqa: PTH208 - polled, and iterdir costs twice
        except FileNotFoundError:
            return []

    def _take(self, names: list[str]) -> None:
        starts = segment_starts(names)
        known = dict(zip(self._starts[:-1], self._ends[:-1], strict=True))
        self._ends = [known.get(start) or self._end_of(start) for start in starts]
        self._starts = starts
        self._names = names

    def _end_of(self, start: int) -> int:
        return start + log_path(self._folder, start).stat().st_size

    def _read(self, offset: int, size: int) -> Piece | Gap:
        after = bisect_right(self._starts, offset)
        if (after == 0 or self._ends[after - 1] <= offset) and after < len(self._starts):
            return self._gap(offset, self._starts[after])
        parts: list[bytes] = []
        here, at = offset, max(0, after - 1)
        while size and at < len(self._starts) and self._starts[at] <= here < self._ends[at]:
            wanted = min(size, self._ends[at] - here)
            with log_path(self._folder, self._starts[at]).open("rb", buffering=0) as file:
                parts.append(os.pread(file.fileno(), wanted, here - self._starts[at]))
            here += wanted
            size -= wanted
            at += 1
        return Piece(offset, b"".join(parts))

    def _backwards(self) -> Iterator[Piece]:
        """All bytes from the end to the beginning, each piece in its own order."""
        for start, end in reversed(self.segments()):
            stop = end
            while stop > start:
                begin = max(start, stop - _SCAN)
                item = self.read(begin, stop - begin)
                if isinstance(item, Gap):
                    break  # dropped while we read
                yield item
                stop = begin

    def _gap(self, start: int, end: int) -> Gap:
        noted = [gap for gap in self._noted_gaps() if gap.start < end and start < gap.end]
        reasons = dict.fromkeys(gap.reason for gap in noted)
        return Gap(start, end, ", ".join(reasons) or "not recorded")

    def _noted_gaps(self) -> Iterator[Gap]:
        try:
            text = gaps_path(self._folder).read_text()
        except FileNotFoundError:
            return
        for line in text.splitlines():
            match = _NOTED_GAP.fullmatch(line)
            if match:  # else torn by a crash of the machine
                yield Gap(int(match[1]), int(match[2]), match[3])
