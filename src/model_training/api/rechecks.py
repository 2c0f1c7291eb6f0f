"""Whether those who follow a log may still do so, asked again while they follow.

What was decided when a stream began says nothing about an hour later: somebody left the project,
a key was revoked, a token has expired. Followers of one log with one credential are asked about
together, so that a page open in a hundred tabs costs one question a minute. Where nobody can be
asked, the stream ends too; its client asks to go on, and is told then what is the matter.
"""

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from model_training.access.principals import Principal
from model_training.errors import ModelTrainingError, Unavailable

logger = logging.getLogger(__name__)

RECHECK_S: Final = 60.0  # seconds between two questions about one follower, at most
# Of them, by chance, it is asked so much earlier: all who came back after a restart of the service
# would else be asked about in one moment, and again in each that follows.
_EARLIER: Final = 0.2
AT_ONCE: Final = 16  # questions under way, so that requests are decided about meanwhile


class Ending(Protocol):
    """A stream that can be told to end."""

    def expel(self, reason: str) -> None:
        """End, and tell the client why in one word."""
        ...


@dataclass(frozen=True, slots=True)
class Permit:
    """What a follower was permitted."""

    principal: Principal
    name: str
    """of the job"""
    ask: Callable[[], Awaitable[object]]
    """raises an error of ours if it is no longer permitted"""

    @property
    def key(self) -> "_Key":
        """Equal for followers who are asked about together."""
        who = self.principal
        return who.id, who.fingerprint, who.expires_at, self.name


_Key = tuple[str, str, float | None, str]


@dataclass(slots=True)
class _Watched:
    """The followers of one key."""

    permit: Permit
    due: float
    streams: set[Ending] = field(default_factory=set[Ending])


class Rechecks:
    """All permits that last."""

    def __init__(self, interval_s: float = RECHECK_S) -> None:
        self._interval_s = interval_s
        self._watched: dict[_Key, _Watched] = {}
        self._of: dict[Ending, _Watched] = {}
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._task: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._is_new = asyncio.Event()

    def enter(self, stream: Ending, permit: Permit) -> None:
        """Look after the stream until it leaves."""
        watched = self._watched.get(permit.key)
        if watched is None:
            watched = self._watched[permit.key] = _Watched(permit, self._next(permit))
            self._is_new.set()
        watched.streams.add(stream)
        self._of[stream] = watched
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="rechecks")

    def leave(self, stream: Ending) -> None:
        """The stream has ended."""
        watched = self._of.pop(stream, None)
        if watched is None:
            return
        watched.streams.discard(stream)
        if not watched.streams:
            self._forget(watched)
        if not self._watched and self._task is not None:
            self._task.cancel()
            self._task = None

    def _forget(self, watched: _Watched) -> None:
        """Whoever comes now is another one's."""
        if self._watched.get(watched.permit.key) is watched:
            del self._watched[watched.permit.key]

    def _next(self, permit: Permit) -> float:
        """When to ask again, by the loop's clock."""
        wait = self._interval_s * random.uniform(1 - _EARLIER, 1)  # noqa: S311 no secret
        if permit.principal.expires_at is not None:
            wait = min(wait, max(0.0, permit.principal.expires_at - time.time()))
        return asyncio.get_running_loop().time() + wait

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            self._is_new.clear()
            now = clock()
            for watched in [one for one in self._watched.values() if one.due <= now]:
                watched.due = float("inf")  # until it was answered
                look = asyncio.create_task(self._look(watched))
                self._looks.add(look)
                look.add_done_callback(self._looks.discard)
            due = min((one.due for one in self._watched.values()), default=now + self._interval_s)
            try:
                async with asyncio.timeout_at(min(due, now + self._interval_s)):
                    await self._is_new.wait()
            except TimeoutError:
                pass

    async def _look(self, watched: _Watched) -> None:
        async with self._slots:
            reason = await self._reason_to_end(watched.permit)
        if reason is None:
            watched.due = self._next(watched.permit)
            self._is_new.set()
            return
        self._forget(watched)
        for stream in list(watched.streams):
            stream.expel(reason)

    async def _reason_to_end(self, permit: Permit) -> str | None:
        expires_at = permit.principal.expires_at
        if expires_at is not None and expires_at <= time.time():
            return "expired"
        try:
            await permit.ask()
        except Unavailable:
            return "unavailable"
        except ModelTrainingError:
            return "refused"
        except Exception:
            # Whatever it is: nobody said yes, so it is a no.
            logger.exception("whether %s may go on following could not be asked", permit.name)
            return "unavailable"
        return None
