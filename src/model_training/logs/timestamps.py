"""The time before each line: that of the write which holds the line's first byte."""

import time

from model_training.logs.layout import Gap, Piece
from model_training.logs.view import LogView


class LineTimes:
    """Puts its time before each line of a stream of pieces, whatever way they are cut."""

    def __init__(self, view: LogView, offset: int) -> None:
        """Begin at ``offset``; bytes up to the first newline have a time only if a line starts."""
        self._view = view
        self._at_line_start = _begins_line(view, offset)
        self._second = -1
        self._second_text = ""

    def stamp(self, piece: Piece) -> bytes:
        """The piece, a time and a space before the first byte of each line in it.

        Pieces come in order; gaps between them are left out, and no time shows for them.
        """
        writes = self._view.writes(piece.offset, piece.end)
        _, time_ns = next(writes)
        upcoming = next(writes, None)
        parts: list[bytes] = []
        start = 0
        while start < len(piece.data):
            while upcoming is not None and upcoming.offset <= piece.offset + start:
                time_ns = upcoming.time_ns
                upcoming = next(writes, None)
            stop = piece.data.find(b"\n", start) + 1 or len(piece.data)
            if self._at_line_start:
                parts.append(self._text(time_ns))
            parts.append(piece.data[start:stop])
            self._at_line_start = piece.data[stop - 1] == 0x0A
            start = stop
        writes.close()
        return b"".join(parts)

    def _text(self, time_ns: int) -> bytes:
        second, ns = divmod(time_ns, 1_000_000_000)
        if second != self._second:  # most lines share their second with the one before
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{ns // 1000:06d}Z ".encode()


def _begins_line(view: LogView, offset: int) -> bool:
    """Whether the last byte that is there before ``offset`` is a newline, or there is none."""
    for start, end in reversed(view.segments()):
        if start < offset and start < end:
            before = view.read(min(end, offset) - 1, 1)
            return isinstance(before, Gap) or before.data == b"\n"
    return True
