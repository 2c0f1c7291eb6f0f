"""Answers that are sent bit by bit: followed logs, whole logs, outputs, the list of all jobs.

A follower costs memory for as long as a job lives, and there may be thousands, so a stream is
one task beside the request's own and nothing more: the task sends, the request waits for the
client to go away and keeps a quiet stream alive. One watcher for all streams ends them when the
server stops; a client that does not read is dropped by the connection itself
(``deadlines.py``), so that no stream needs a clock of its own.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from typing import Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from model_training.access.principals import Principal
from model_training.api.rechecks import Permit, Rechecks
from model_training.api.shares import Shares
from model_training.crash_points import reached
from model_training.errors import Unavailable

logger = logging.getLogger(__name__)

FAREWELL_S: Final = 0.4  # seconds that a client has to take the last words of a stopping server
ABORT: Final = "model_training.abort"  # our protocol class puts the way to cut a connection here


class Cut(Exception):  # not in errors.py: nobody is answered with it
    """The source ended early: the client must see a cut, never a complete answer."""


class Streams:
    """Every answer that is being streamed."""

    def __init__(
        self, stopping: asyncio.Event, *, max_followers: int, shares: Shares, rechecks: Rechecks
    ) -> None:
        self._stopping = stopping
        self._max_followers = max_followers
        self._shares = shares
        self.rechecks = rechecks
        self._open: set[Streamed] = set()
        self._watcher: asyncio.Task[None] | None = None
        self.followers = 0
        """how many of them follow a log"""

    def admit_follower(self, principal: Principal) -> None:
        """Take the place of one more follower, which ``dismiss_follower`` gives back.

        Raises:
            Unavailable: there are as many as this service carries.
            TooManyRequests: there are as many as one caller may be.
        """
        if self.followers >= self._max_followers:
            raise Unavailable(f"{self.followers} clients follow logs already; try again later.")
        self._shares.take_follower(principal)
        self.followers += 1

    def dismiss_follower(self, principal: Principal) -> None:
        """A follower has gone, or did not come after all."""
        self._shares.give_back_follower(principal)
        self.followers -= 1

    def enter(self, stream: "Streamed") -> None:
        """Keep the stream until it leaves; it is ended when the server stops."""
        self._open.add(stream)
        if self._watcher is None:
            self._watcher = asyncio.create_task(self._watch(), name="streams")

    def leave(self, stream: "Streamed") -> None:
        """The stream has ended."""
        self._open.discard(stream)
        if not self._open and self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _watch(self) -> None:
        await self._stopping.wait()
        while self._open:
            for stream in self._open:
                stream.stop()
            await asyncio.sleep(0.05)  # for those that begin only now


class Streamed(Response):
    """An answer whose body comes from a generator of byte frames.

    Args:
        streams: where it is kept while it runs.
        frames: the body; raises ``Cut`` where it ends early.
        headers: of the answer; with a Content-Length, the frames must add up to it.
        status_code: 200 or 206.
        close: called when nothing more is sent, whether or not a frame was taken.
        permit: of a follower, who was admitted.
    """

    def __init__(
        self,
        streams: Streams,
        frames: AsyncGenerator[bytes],
        headers: Mapping[str, str],
        *,
        status_code: int = 200,
        close: Callable[[], None] | None = None,
        permit: Permit | None = None,
    ) -> None:
        # The parent's constructor would render a body; what else it sets is set here.
        self.status_code = status_code
        self.background = None
        self.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in headers.items()
        ]
        self._streams = streams
        self._frames = frames
        self._close = close
        self._permit = permit
        self._is_stopped = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send head and body until they are complete, the client goes or the server stops."""
        try:
            start = {"status": self.status_code, "headers": self.raw_headers}
            await send({"type": "http.response.start", **start})
            if scope["method"] == "HEAD":
                await self._frames.aclose()
                await send({"type": "http.response.body", "body": b""})
            else:
                await self._stream(scope, receive, send)
        finally:
            if self._permit is not None:
                self._streams.dismiss_follower(self._permit.principal)
            if self._close is not None:
                self._close()

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._connect(send, scope["extensions"][ABORT])
        self._streams.enter(self)
        self._task = asyncio.create_task(self._pump())
        if self._permit is not None:
            self._streams.rechecks.enter(self, self._permit)
        try:
            await self._until_gone(receive)
        finally:
            self._streams.leave(self)
            if self._permit is not None:
                self._streams.rechecks.leave(self)
            self._task.cancel()
            await asyncio.wait([self._task])

    def stop(self) -> None:
        """End the stream, because the server stops; said once or often."""
        if not self._is_stopped:
            self._is_stopped = True
            self._task.cancel()

    def expel(self, reason: str) -> None:
        """End the stream, because it is no longer permitted."""
        self._last_words(reason)
        self.stop()

    def _last_words(self, reason: str) -> None:
        """Text has no place for any: it is cut."""

    def _connect(self, send: Send, abort: Callable[[], None]) -> None:
        self._send = send
        self._abort = abort

    async def _until_gone(self, receive: Receive) -> None:
        # A server also says "disconnect" once an answer is complete.
        while (await receive())["type"] != "http.disconnect":
            pass

    async def _write(self, frame: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": frame, "more_body": more})

    async def _pump(self) -> None:
        try:
            async with aclosing(self._frames):
                async for frame in self._frames:
                    await self._write(frame)
                    reached("follow.sent")
            await self._write(b"", more=False)
        except asyncio.CancelledError:
            if not self._is_stopped:
                raise
            await self._part()
        except Cut:
            self._abort()
        except Exception:
            # Half of an answer is out, so no problem can follow: it is cut, and the log tells why.
            logger.exception("an answer was cut")
            self._abort()

    async def _part(self) -> None:
        self._abort()


class FollowedEvents(Streamed):
    """A log as server-sent events: kept alive while nothing comes, and told why it ends."""

    quiet_s = 10.0  # seconds without a byte before a ping; the contract promises 15
    ping = b": ping\n\n"
    farewell = b'event: bye\ndata: {"retry_s":1}\n\n'
    expulsion = b'event: access_ended\ndata: {"reason":"%s"}\n\n'

    def _connect(self, send: Send, abort: Callable[[], None]) -> None:
        super()._connect(send, abort)
        self._clock = asyncio.get_running_loop().time
        self._last_sent = self._clock()
        self._is_free = asyncio.Lock()
        self._is_complete = False

    def _last_words(self, reason: str) -> None:
        self.farewell = self.expulsion % reason.encode()

    async def _write(self, frame: bytes, *, more: bool = True) -> None:
        async with self._is_free:
            if self._is_complete:  # a ping that waited for the last frame
                return
            await super()._write(frame, more=more)
            self._is_complete = not more
        self._last_sent = self._clock()

    async def _until_gone(self, receive: Receive) -> None:
        while not self._task.done():
            try:
                async with asyncio.timeout_at(self._last_sent + self.quiet_s):
                    return await super()._until_gone(receive)
            except TimeoutError:
                if self._clock() - self._last_sent >= self.quiet_s and not self._task.done():
                    await self._write(self.ping)
        return None

    async def _part(self) -> None:
        try:
            async with asyncio.timeout(FAREWELL_S):
                await self._write(self.farewell, more=False)
        except TimeoutError:
            self._abort()
