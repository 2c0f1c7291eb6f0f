"""A followed log on the wire: as text, and as server-sent events.

Followers that are up to date are given the same ``Printed`` object, so its frame is encoded once
and shared: with 2,000 followers of one job this is most of what a line costs.
"""

import base64
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import orjson

from model_training.api.streaming import Cut
from model_training.jobs import JSONObject, TrainingJob
from model_training.reading import (
    Ended,
    FollowedLog,
    LogEvent,
    Missing,
    Printed,
    Reset,
    StateSeen,
)

KEPT_BYTES: Final = 4 * 2**20  # of encoded frames; a follower that is further behind encodes anew
DELETED: Final[JSONObject] = {
    "state": "deleted",
    "reason": None,
    "message": "The job was deleted.",
    "exit_code": None,
}

_LINE_ENDS: Final = tuple(
    (character.encode(), f"\\u{ord(character):04x}".encode()) for character in "\x85\u2028\u2029"
)


class EventFrames:
    """Encodes log events, keeping the frames that other followers will want in a moment."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Printed, bytes] = OrderedDict()
        self._size = 0

    async def of(self, followed: FollowedLog) -> AsyncGenerator[bytes]:
        """The frames of one follower.

        Raises:
            Cut: the log ended without its end.
        """
        async with aclosing(followed.events) as events:
            async for event in events:
                yield self.frame(event)
                if isinstance(event, Ended):
                    return
        raise Cut

    def frame(self, event: LogEvent) -> bytes:
        """One event as it is sent."""
        if not isinstance(event, Printed):
            return _encode(event)
        frame = self._kept.get(event)
        if frame is None:
            frame = _event("log", _text(event.data), event.position)
            self._keep(event, frame)
        return frame

    def _keep(self, printed: Printed, frame: bytes) -> None:
        self._kept[printed] = frame
        self._size += len(frame)
        while self._size > KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._size -= len(oldest)


async def text_frames(followed: FollowedLog) -> AsyncGenerator[bytes]:
    """What the job prints, as it is.

    Raises:
        Cut: the log ended without its end.
    """
    async with aclosing(followed.events) as events:
        async for event in events:
            if isinstance(event, Printed):
                yield event.data
            elif isinstance(event, Ended):
                return
    raise Cut


def _encode(event: Missing | Reset | StateSeen | Ended) -> bytes:
    match event:
        case Missing(gap, position):
            data: JSONObject = {"from": gap.start, "to": gap.end, "reason": gap.reason}
            return _event("gap", data, position)
        case Reset(reason, position):
            return _event("reset", {"reason": reason}, position)
        case StateSeen(job):
            return _event("state", _state(job))
        case Ended(job):
            ended = DELETED if job is None else {**_state(job), "exit_code": job.exit_code}
            return _event("end", ended)


def _state(job: TrainingJob) -> JSONObject:
    return {"state": str(job.state), "reason": job.reason, "message": job.message}


def _text(data: bytes) -> JSONObject:
    try:
        return {"text": data.decode()}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _event(name: str, data: JSONObject, position: str | None = None) -> bytes:
    # JSON on one line: no character of a log can begin another event, not even for a client that
    # takes Unicode's further line ends for some.
    line = orjson.dumps(data)
    for character, escaped in _LINE_ENDS:
        line = line.replace(character, escaped)
    place = f"id: {position}\n" if position is not None else ""
    return f"event: {name}\n{place}data: ".encode() + line + b"\n\n"
