"""Following logs: one reader a log, however many follow it, and no thread for any of them.

The reader looks for new bytes by a timer of the event loop, while somebody waits for them, and
puts them into a short ring that all followers share. Whoever is too slow for the ring, or began
far behind, reads by itself from the files until it has caught up, so that nobody waits for
anybody. Looking by a timer costs some microseconds a time and works on every file system, which
notification does not.
"""

import asyncio
import codecs
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from model_training.logs.layout import Gap, Piece
from model_training.logs.view import LogView

_CHUNK: Final = 64 << 10  # bytes; a follower that is stuck in a send holds one of them
_RING_CHUNKS: Final = 256  # five seconds of steady output at the fast pace
_RING_BYTES: Final = 1 << 20
_FAST_S: Final = 0.02  # between two looks while output flows, or somebody has just come
_SLOW_S: Final = 0.1
_LIVELY_S: Final = 1.0  # how long after output, or a newcomer, the pace stays fast
_CROWD_S: Final = 0.00025  # more a follower: waking one costs about a tenth of it
_CROWD_LIMIT_S: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Chunk:
    """Bytes of a log from ``offset``; the very same object for all who are up to date.

    Compared by identity, so that what was made of it once can be found again for the next one.
    """

    offset: int
    data: bytes

    @property
    def end(self) -> int:
        """The offset after the last byte."""
        return self.offset + len(self.data)


class Followers:
    """All who follow logs on one event loop."""

    def __init__(self) -> None:
        self._readers: dict[Path, _Reader] = {}

    async def follow(
        self, folder: Path, offset: int, ended: asyncio.Event
    ) -> AsyncGenerator[Chunk | Gap | None]:
        """What the log in ``folder`` has from ``offset`` on, then what comes, each byte once.

        None says only that somebody called ``nudge``.

        No chunk ends within a UTF-8 character, unless the log ends or has a gap there, or the
        bytes are no UTF-8. Close the generator (``contextlib.aclosing``) when leaving early.

        Args:
            folder: of the log; it may not be there yet.
            offset: in bytes. Beyond the end, it is waited for.
            ended: to be set once the log is complete on disk; then the rest comes and the end.

        Raises:
            OSError: the log cannot be read.
        """
        reader = self._readers.get(folder)
        if reader is None:
            reader = self._readers[folder] = _Reader(folder)
        reader.join(ended)
        files = LogView(folder)
        nudges = reader.nudges
        try:
            while True:
                if nudges != reader.nudges:
                    nudges = reader.nudges
                    yield None
                item = reader.at(offset)
                if item is None and offset < reader.begin:
                    item = await asyncio.to_thread(_take, files, offset, reader.begin, final=True)
                if item is not None:
                    offset = item.end
                    yield item
                elif reader.complete and ended.is_set():
                    return
                else:
                    await reader.wait()
        finally:
            if not reader.leave(ended):
                self._readers.pop(folder, None)

    @property
    def are_any(self) -> bool:
        """Whether anybody follows any log."""
        return bool(self._readers)

    def nudge(self, folder: Path) -> None:
        """Look into this log now, and tell all who follow it: its job has changed."""
        if folder in self._readers:
            self._readers[folder].nudge()


class _Reader:
    """Reads one log for all its followers.

    ``begin`` and ``end`` bound what the ring holds; ``complete`` says that nothing comes after.
    """

    def __init__(self, folder: Path) -> None:
        self._view = LogView(folder)
        self._ring: dict[int, Chunk | Gap] = {}  # by offset, in order, without holes
        self._ring_bytes = 0
        self.begin = self.end = _whole_end(self._view)
        self.complete = False
        self.nudges = 0
        self._error: OSError | None = None
        self._ended = Counter[asyncio.Event]()
        self._waiting = 0
        self._changed = asyncio.Event()
        self._overdue = False  # there is more to read as soon as somebody waits for it
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.Handle | None = None
        self._timer_at = 0.0  # uvloop's timers do not tell it where none was needed
        self._pause_s = _FAST_S
        self._lively_until = 0.0

    def join(self, ended: asyncio.Event) -> None:
        """One more follows, until ``ended``."""
        self._ended[ended] += 1
        self._lively_until = self._loop.time() + _LIVELY_S
        if not self.complete and ended.is_set():
            self.look_within(0)
        elif not ended.is_set():
            self.look_within(max(_FAST_S, self._crowd_s()))

    def leave(self, ended: asyncio.Event) -> bool:
        """One less; whether any is left."""
        self._ended[ended] -= 1
        if not self._ended[ended]:
            del self._ended[ended]
        if not self._ended and self._timer is not None:
            self._timer.cancel()
        return bool(self._ended)

    def at(self, offset: int) -> Chunk | Gap | None:
        """What the ring has from ``offset`` on, or None."""
        if offset in self._ring or not self.begin <= offset < self.end:
            return self._ring.get(offset)
        item = next(item for item in self._ring.values() if item.end > offset)
        if isinstance(item, Gap):
            return item._replace(start=offset)
        return Chunk(offset, item.data[offset - item.offset :])

    async def wait(self) -> None:
        """Until there is more, the log is complete, or somebody's ``ended`` was set."""
        if self._error is not None:
            raise self._error
        if self._overdue:
            self.look_within(0)
        self._waiting += 1
        try:
            await self._changed.wait()
        finally:
            self._waiting -= 1

    def nudge(self) -> None:
        """Wake everybody, and look now."""
        self.nudges += 1
        self._wake()
        self.look_within(0)

    def look_within(self, delay_s: float) -> None:
        """See that the next look is no later than that."""
        when = self._loop.time() + delay_s
        if self._timer is not None:
            if self._timer_at <= when:
                return
            self._timer.cancel()
        self._timer_at = when
        self._timer = self._loop.call_at(when, self._look)

    def _look(self) -> None:
        self._timer = None
        ended = sum(event.is_set() for event in self._ended)
        grew = False
        if not self._waiting:
            self._overdue = True  # nothing is read ahead of the quickest follower
        else:
            try:
                grew = self._read_new(final=ended > 0)
            except OSError as error:
                self._error = error
                self._wake()
                return
            self.complete = ended > 0 and not self._overdue
            if grew or self.complete:
                self._wake()
        if ended < len(self._ended):
            self.look_within(self._next_pause_s(grew=grew))

    def _read_new(self, *, final: bool) -> bool:
        """Fill at most a quarter of the ring; whether there was anything new."""
        stop = self._view.end
        grew = False
        self._overdue = True
        for _ in range(_RING_BYTES // _CHUNK // 4):
            item = _take(self._view, self.end, stop, final=final)
            if item is None:
                self._overdue = False
                break
            self._publish(item)
            grew = True
        return grew

    def _publish(self, item: Chunk | Gap) -> None:
        self._ring[self.end] = item
        self._ring_bytes += _weight(item)
        self.end = item.end
        while self._ring_bytes > _RING_BYTES or len(self._ring) > _RING_CHUNKS:
            oldest = self._ring.pop(self.begin)
            self._ring_bytes -= _weight(oldest)
            self.begin = oldest.end

    def _wake(self) -> None:
        self._changed.set()
        self._changed.clear()

    def _next_pause_s(self, *, grew: bool) -> float:
        now = self._loop.time()
        if grew:
            self._lively_until = now + _LIVELY_S
        lively = now < self._lively_until
        self._pause_s = _FAST_S if lively else min(_SLOW_S, self._pause_s * 1.5)
        return max(self._pause_s, self._crowd_s())

    def _crowd_s(self) -> float:
        return min(_CROWD_LIMIT_S, _CROWD_S * self._ended.total())


def _weight(item: Chunk | Gap) -> int:
    return len(item.data) if isinstance(item, Chunk) else 0


def _take(view: LogView, offset: int, stop: int, *, final: bool) -> Chunk | Gap | None:
    """The next chunk or gap before ``stop``; None where there is none yet.

    ``final`` says that nothing comes after ``stop``, or that a character may be cut there.
    """
    if offset >= stop:
        return None
    item = view.read(offset, min(_CHUNK, stop - offset))
    if isinstance(item, Gap):
        return item._replace(end=min(item.end, stop))
    data = item.data
    if not (final and item.end == stop):
        held = _unfinished(data)
        if held and isinstance(view.read(item.end, 1), Piece):  # a gap is where it ends
            data = data[:-held]
    return Chunk(offset, data) if data else None


def _unfinished(data: bytes) -> int:
    """How many bytes at the end, 0 to 3, begin a UTF-8 character that is not all there."""
    for length in range(1, min(3, len(data)) + 1):
        if data[-length] & 0xC0 != 0x80:  # not within a character: one begins here
            try:
                _, complete = codecs.utf_8_decode(data[-length:], "strict", False)  # noqa: FBT003
            except UnicodeDecodeError:
                return 0
            return length - complete
    return 0


def _whole_end(view: LogView) -> int:
    """The end of the log, or of its last whole character."""
    end = view.end
    last = view.read(max(0, end - 3), 3)
    if isinstance(last, Gap) or last.end < end:
        return end
    return end - _unfinished(last.data[: end - last.offset])
