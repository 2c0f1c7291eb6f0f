"""Reading a job's log: once, or for as long as the job lives.

The bytes come from ``logs``; this adds what the job is doing meanwhile, so that a follower knows
why nothing comes yet and never takes a cut for the end.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from model_training.folders import JobFolder
from model_training.jobs import TrainingJob
from model_training.logs.follow import Followers
from model_training.logs.segments import Gap, Position


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

    @property
    def position(self) -> Position:
        """Just after the last byte."""
        raise NotImplementedError

    def blocks(self, start: int, end: int) -> AsyncGenerator[bytes]:
        """The bytes (with times, if selected) of a part, a bounded block at a time."""
        raise NotImplementedError


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
    """The part of the log that the selection names."""
    raise NotImplementedError


async def follow_log(
    followers: Followers,
    folder: JobFolder,
    job: TrainingJob,
    selection: LogSelection,
    *,
    ended: asyncio.Event,
    look: Callable[[], Awaitable[TrainingJob | None]],
) -> FollowedLog:
    """Follow from where the selection says."""
    raise NotImplementedError
