"""Reading a job's log: once, or for as long as the job lives.

The bytes come from ``logs``; this adds what the job is doing meanwhile, so that a follower knows
why nothing comes yet and never takes a cut for the end.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from weakref import WeakKeyDictionary

from model_training.errors import Fault, InvalidRequest, RangeNotSatisfiable
from model_training.folders import JobFolder
from model_training.jobs import TrainingJob
from model_training.logs.follow import Chunk, Followers
from model_training.logs.layout import Gap, Piece
from model_training.logs.positions import Position
from model_training.logs.timestamps import LineTimes
from model_training.logs.view import LogView

Look = Callable[[], Awaitable[TrainingJob | None]]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ANEW = "the log was collected anew; it begins again"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSelection:
    """Which part of a log: the last ``tail`` lines, what came ``since``, or ``after``."""

    tail: int | None = None
    since: datetime | None = None
    after: Position | None = None
    """where a follower left off; it wins over tail and since"""
    attempt: int | None = None
    """the latest, if None"""
    timestamps: bool = False
    """each line begins with the time at which it was printed"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogAnswer:
    """A log as it is now: bytes ``start`` to ``end`` of one attempt."""

    job: TrainingJob
    attempt: int
    generation: int
    start: int
    end: int
    size: int
    """end of the whole log, whatever was selected"""
    gaps: tuple[Gap, ...]
    """missing byte ranges between start and end"""

    view: LogView = field(repr=False)
    timestamps: bool = False

    @property
    def position(self) -> Position:
        """Just after the last byte."""
        return Position(self.attempt, self.end, self.generation)

    async def blocks(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """The bytes (with times, if selected) of a part, a bounded block at a time."""
        pieces = self.view.blocks(start, end)
        times = LineTimes(self.view, start) if self.timestamps else None

        def next_block() -> bytes | None:
            for piece in pieces:
                if isinstance(piece, Piece):
                    return times.stamp(piece) if times else piece.data
            return None

        while (block := await asyncio.to_thread(next_block)) is not None:
            yield block


@dataclass(frozen=True, slots=True, eq=False)
class Printed:
    """Bytes that the job printed.

    Followers that are up to date are given the same object: compared by identity, so that what
    is made of it (a frame on the wire) can be kept and shared.
    """

    data: bytes
    position: str
    """just after these bytes"""


@dataclass(frozen=True, slots=True)
class Missing:
    """Bytes that were printed and are not kept."""

    gap: Gap
    position: str


@dataclass(frozen=True, slots=True)
class Reset:
    """The position asked for is of another collection of this log; it begins anew."""

    reason: str
    position: str


@dataclass(frozen=True, slots=True)
class StateSeen:
    """What the job does: first, and whenever state, reason or message change."""

    job: TrainingJob


@dataclass(frozen=True, slots=True)
class Ended:
    """The log is complete. ``job`` is None if the job was deleted meanwhile."""

    job: TrainingJob | None


LogEvent = Printed | Missing | Reset | StateSeen | Ended


@dataclass(frozen=True, slots=True)
class FollowedLog:
    """A log being followed; the last event is ``Ended``, unless the caller stops before."""

    job: TrainingJob
    position: Position
    """where it begins"""
    events: AsyncGenerator[LogEvent]


async def read_log(folder: JobFolder, job: TrainingJob, selection: LogSelection) -> LogAnswer:
    """The part of the log that the selection names.

    Raises:
        InvalidRequest: the job had no such attempt.
    """
    attempt = _attempt(job, selection)
    view = LogView(folder.log(attempt))

    def look() -> LogAnswer:
        size = view.end
        start = min(_start(view, selection), size)
        return LogAnswer(
            job=job,
            attempt=attempt,
            generation=view.generation,
            start=start,
            end=size,
            size=size,
            gaps=tuple(gap for gap in view.gaps() if gap.end > start),
            view=view,
            timestamps=selection.timestamps,
        )

    return await asyncio.to_thread(look)


def _attempt(job: TrainingJob, selection: LogSelection) -> int:
    attempt = selection.after.attempt if selection.after else selection.attempt or job.attempt
    if attempt > job.attempt:
        where = "header.Last-Event-ID" if selection.after else "query.attempt"
        raise InvalidRequest(Fault(where, f"the job's latest attempt is {job.attempt}"))
    return attempt


def _start(view: LogView, selection: LogSelection) -> int:
    starts = [0]
    if selection.tail is not None:
        starts.append(view.tail_offset(selection.tail))
    if selection.since is not None:
        microseconds = (selection.since - _EPOCH) // timedelta(microseconds=1)
        starts.append(view.offset_since(max(0, microseconds * 1000)))
    return max(starts)


class LogFollowing:
    """Follows logs for everybody, and keeps what followers of one log can share."""

    def __init__(self, followers: Followers) -> None:
        self._followers = followers
        self._printed: WeakKeyDictionary[Chunk, Printed] = WeakKeyDictionary()

    async def follow(
        self,
        folder: JobFolder,
        job: TrainingJob,
        selection: LogSelection,
        *,
        ended: asyncio.Event,
        look: Look,
    ) -> FollowedLog:
        """Follow from where the selection says.

        Args:
            folder: of the job.
            job: as it is now.
            selection: where to begin.
            ended: set once the log is complete, or gone.
            look: the job as it is then; None once it was deleted.

        Raises:
            InvalidRequest: the job had no such attempt.
            RangeNotSatisfiable: the position lies beyond the end.
        """
        attempt = _attempt(job, selection)
        log = folder.log(attempt)
        begin = await asyncio.to_thread(_begin, LogView(log), attempt, selection)
        events = self._events(log, begin, _Watch(job, ended, look))
        return FollowedLog(job, begin.position, events)

    async def _events(
        self, log: Path, begin: "_Begin", watch: "_Watch"
    ) -> AsyncGenerator[LogEvent]:
        yield StateSeen(watch.job)
        if begin.is_anew:
            yield Reset(_ANEW, str(begin.position))
        offset = begin.position.offset
        async with aclosing(self._followers.follow(log, offset, watch.ended)) as items:
            async for item in items:
                if isinstance(item, Chunk):
                    yield await self._print(item, begin)
                elif isinstance(item, Gap):
                    yield Missing(item, str(begin.position._replace(offset=item.end)))
                elif await watch.saw_change():
                    yield StateSeen(watch.job)
        yield Ended(await watch.look())

    async def _print(self, chunk: Chunk, begin: "_Begin") -> Printed:
        if begin.times is not None:
            piece = Piece(chunk.offset, chunk.data)
            data = await asyncio.to_thread(begin.times.stamp, piece)
            return Printed(data, str(begin.position._replace(offset=chunk.end)))
        printed = self._printed.get(chunk)
        if printed is None:
            position = str(begin.position._replace(offset=chunk.end))
            printed = self._printed[chunk] = Printed(chunk.data, position)
        return printed


@dataclass(frozen=True, slots=True)
class _Begin:
    """Where a follower begins, and how."""

    position: Position
    is_anew: bool
    times: LineTimes | None


def _begin(view: LogView, attempt: int, selection: LogSelection) -> _Begin:
    generation = view.generation
    after = selection.after
    if after is None:
        offset = _start(view, selection)
    else:
        offset = after.offset if after.generation == generation else 0
        if offset > (size := view.end):
            raise RangeNotSatisfiable(size)
    return _Begin(
        Position(attempt, offset, generation),
        is_anew=after is not None and after.generation != generation,
        times=LineTimes(view, offset) if selection.timestamps else None,
    )


@dataclass(slots=True)
class _Watch:
    """A job as one follower knows it."""

    job: TrainingJob
    ended: asyncio.Event
    look: Look

    async def saw_change(self) -> bool:
        """Whether what the job does is something else than before."""
        now = await self.look()
        if now is None or _doing(now) == _doing(self.job):
            return False
        self.job = now
        return True


def _doing(job: TrainingJob) -> tuple[str, str | None, str | None]:
    return job.state, job.reason, job.message
