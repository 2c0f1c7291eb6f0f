"""Copying what containers print into the log of an attempt, one stream at a time."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import UTC, datetime
from enum import Enum, auto
from pathlib import Path
from typing import Final, cast

from model_training.errors import ExecutorUnavailable
from model_training.executors.kubernetes.api import ApiError, Chunks, KubernetesApi
from model_training.executors.kubernetes.log_plans import Read, next_step
from model_training.executors.kubernetes.log_sources import Source, SourceFile
from model_training.executors.kubernetes.objects import PodRow, decode_pod
from model_training.executors.kubernetes.stamped_text import (
    Anchor,
    Batch,
    Seeker,
    StampedText,
    says_no_log,
    says_removed,
    time_of,
)
from model_training.logs.segments import LogView, SegmentWriter

MARGIN_S: Final = 10  # that a node's clock may be set back while its log is not read
QUIET_S: Final = 300.0  # without a byte; then the log is asked for once more
DRAIN_S: Final = 10.0  # the same, once the container has ended
FINITE_S: Final = 30.0  # the same, for a log that is not followed
PACE_S: Final = 0.03  # between two chunks, so that small writes come together
FINITE_AT_ONCE: Final = 32  # logs of ended containers that are read at the same time

_ROTATED: Final = (
    "the node rotated its log while it was not read; how many bytes are missing is not known"
)


class End(Enum):
    """How reading a log ended."""

    WHOLE = auto()
    """the kubelet sent all there was, as far as it says"""
    CUT = auto()
    """there may be more"""
    REFUSED = auto()
    """there is no such log (now)"""
    MOVED = auto()
    """the line from which to go on is not there"""
    STALE = auto()
    """the pod is not what we take it for"""


class LogApi:
    """The API server, as far as logs of pods are concerned; one for all of them."""

    def __init__(self, api: KubernetesApi) -> None:
        self._api = api
        self._finite = asyncio.Semaphore(FINITE_AT_ONCE)

    @asynccontextmanager
    async def stream(
        self, pod: PodRow, step: Read, since: Anchor | None, *, follow: bool
    ) -> AsyncGenerator[Chunks]:
        """The log as the kubelet sends it, from some seconds before ``since``."""
        params = {"container": step.container, "timestamps": "true"}
        if follow:
            params["follow"] = "true"
        if step.is_previous:
            params["previous"] = "true"
        if since is not None:
            second = time_of(since.stamp) // 10**9 - MARGIN_S
            params["sinceTime"] = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        path = f"{_path(pod)}/log"
        async with AsyncExitStack() as stack:
            if not follow:
                await stack.enter_async_context(self._finite)
            stall_s = QUIET_S if follow else FINITE_S
            yield await stack.enter_async_context(self._api.stream(path, params, stall_s=stall_s))

    async def has_line(self, pod: PodRow, step: Read, anchor: Anchor) -> bool | None:
        """Whether the node still has that line; None if it cannot say now."""
        seeker = Seeker(anchor)
        async with self.stream(pod, step, anchor, follow=False) as chunks:
            async for chunk in chunks:
                if seeker.feed(chunk) is not None:
                    return True
        return None if seeker.message else False

    async def is_current(self, pod: PodRow, step: Read, source: Source) -> bool:
        """Whether the step is still what the pod's status, asked for now, tells us to do."""
        now = decode_pod(await self._api.get(_path(pod)))
        planned = next_step(now, source)
        return now.uid == pod.uid and isinstance(planned, Read) and planned[:3] == step[:3]


class Copier:
    """Copies into the log of one attempt, and keeps its ``source`` up to date.

    All of it raises ``OSError`` where the log, or how far it is, cannot be written down.
    """

    def __init__(
        self, api: LogApi, folder: Path, file: SourceFile, source: Source, *, log_limit: int
    ) -> None:
        self.source = source
        self.is_whole = False
        """the last stream of the instance came to its own end, and no doubt arose since: none was
        cut, and none broke off with a message. That the log is no longer there is no doubt."""
        self.brought_news = False
        """the last stream had bytes that were not in the log"""
        self._api = api
        self._folder = folder
        self._file = file
        self._log_limit = log_limit
        self._writer: SegmentWriter | None = None
        self._working: asyncio.Future[None] | None = None
        self._deadline: asyncio.Timeout | None = None
        self._hurries = False

    @property
    def position(self) -> int:
        """Where the log ends; 0 while it is not open."""
        return self._writer.position if self._writer else 0

    async def read(self, pod: PodRow, step: Read) -> End:
        """Copy what an instance printed and is not there yet; until it ends, if it runs.

        Raises:
            ExecutorUnavailable: the API server cannot be asked now.
        """
        self._hurries = False
        writer = await self._turn_to(step.container, step.instance)
        begin = writer.position
        try:
            end = await self._read(writer, pod, step)
        except ApiError as no:
            if no.status == 403:  # a right that may be given yet
                self.is_whole = False
                raise ExecutorUnavailable(no.message) from no
            end = End.REFUSED
        except ExecutorUnavailable:
            self.is_whole = False
            raise
        finally:
            self.brought_news = writer.position > begin
        if end in {End.WHOLE, End.CUT}:
            self.is_whole = end is End.WHOLE
        return end

    def hurry(self) -> None:
        """The container that is read has ended: wait no longer for what does not come."""
        self._hurries = True
        if self._deadline is not None:
            with suppress(RuntimeError):  # it has just passed
                self._deadline.reschedule(asyncio.get_running_loop().time() + DRAIN_S)

    async def finish(self, container: str, instance: int, loss: str | None = None) -> None:
        """Nothing more will come of this instance; bring it to the disk.

        Args:
            container: of the instance.
            instance: as in ``Read``.
            loss: why bytes of it are missing; nobody knows how many.
        """
        await self._turn_to(container, instance)
        if loss:
            await self._note_loss(loss)
        self.source.copied = True
        await self.close()

    async def complete(self, loss: str | None = None) -> None:
        """Nothing more will come of this attempt."""
        if loss:
            await self._note_loss(loss)
        await self.close()
        self.source.complete = True
        await self.save()

    async def save(self) -> None:
        """Write down, to stay, where the log comes from."""
        await self._in_thread(lambda: self._file.write(self.source))

    async def _in_thread(self, work: Callable[[], None]) -> None:
        """Do it in a thread, which goes on when we are cancelled: ``close`` waits for it."""
        self._working = asyncio.ensure_future(asyncio.to_thread(work))
        await asyncio.shield(self._working)

    async def close(self) -> None:
        """Bring the log to the disk; nothing of ours writes there afterwards."""
        if self._working is not None:
            await asyncio.wait([self._working])
        writer, self._writer = self._writer, None
        if writer is not None:
            await asyncio.to_thread(writer.close)

    async def _open(self) -> SegmentWriter:
        def work() -> None:
            self._writer = SegmentWriter(self._folder, limit=self._log_limit)

        if self._writer is None:
            await self._in_thread(work)
        return cast("SegmentWriter", self._writer)

    async def _note_loss(self, reason: str) -> None:
        """Once: we may have been killed before it was written down that this was done."""
        writer = await self._open()
        gaps = await asyncio.to_thread(LogView(self._folder).gaps)
        if not gaps or gaps[-1].end != writer.position or reason not in gaps[-1].reason:
            writer.note_loss(reason)

    async def _turn_to(self, container: str, instance: int) -> SegmentWriter:
        writer = await self._open()
        if (container, instance) != (self.source.container, self.source.instance):
            self.source.start(container, instance, writer.position)
            self.is_whole = False
            await self.save()
        return writer

    async def _read(self, writer: SegmentWriter, pod: PodRow, step: Read) -> End:
        end = writer.position
        anchor = await asyncio.to_thread(self.source.resume_at, self._folder, end)
        if anchor is None:
            begin = min(self.source.begin, end)
            return await self._copy(pod, step, None, _Reading(self._store, begin, end))
        reading = _Reading(self._store, anchor.offset, end, Seeker(anchor))
        outcome = await self._copy(pod, step, anchor, reading)
        if outcome is not End.MOVED:
            return outcome
        if (
            not step.has_ended
            and (found := await self._api.has_line(pod, step, anchor)) is not False
        ):
            if found is None:
                return End.CUT
            reading = _Reading(self._store, anchor.offset, end, Seeker(anchor), is_there=True)
            return await self._copy(pod, step, anchor, reading)
        return await self._read_rest(writer, pod, step)

    async def _read_rest(self, writer: SegmentWriter, pod: PodRow, step: Read) -> End:
        """Copy all that the node has, as none of it is in the log."""
        if not await self._api.is_current(pod, step, self.source):
            return End.STALE
        writer.note_loss(_ROTATED)
        reading = _Reading(self._store, writer.position, writer.position)
        return await self._copy(pod, step, None, reading)

    async def _copy(
        self, pod: PodRow, step: Read, since: Anchor | None, reading: "_Reading"
    ) -> End:
        follow = not step.has_ended
        try:
            async with asyncio.timeout(None) as self._deadline:
                if self._hurries:
                    self.hurry()
                async with self._api.stream(pod, step, since, follow=follow) as chunks:
                    async for chunk in chunks:
                        if self._hurries:
                            self.hurry()
                        if (end := reading.take(chunk, follow=follow)) is not None:
                            return end
                        await asyncio.sleep(PACE_S)
            return reading.end(follow=follow, was_whole=self.is_whole)
        except TimeoutError:
            return End.CUT
        finally:
            self._deadline = None

    def _store(self, first: Anchor | None, batch: Batch) -> None:
        if not batch.parts or self._writer is None:
            return
        if first is not None and batch.anchor is not None:
            self.source.note(first, batch.anchor, self._writer.position)
            with suppress(OSError):  # of a disk that is full: the line noted before will do
                self._file.update(self.source)
        for part in batch.parts:
            self._writer.write(part.text, part.time_ns)


class _Reading:
    """One stream, from the wire to ``store``."""

    def __init__(
        self,
        store: Callable[[Anchor | None, Batch], None],
        begin: int,
        stored: int,
        seeker: Seeker | None = None,
        *,
        is_there: bool = False,
    ) -> None:
        """``is_there`` says that the line that ``seeker`` looks for will come."""
        self._store = store
        self._text = StampedText(begin, stored)
        self._seeker = seeker
        self._is_there = is_there

    def take(self, chunk: bytes, *, follow: bool) -> End | None:
        """Take a chunk; how reading ended, if it did."""
        if self._seeker is not None:
            rest = self._seeker.feed(chunk)
            if rest is None:
                gives_up = follow and self._seeker.passed and not self._is_there
                return End.MOVED if gives_up else None
            self._seeker, chunk = None, rest
        batch = self._text.feed(chunk)
        self._store(self._text.first, batch)
        return self._end_for_message(follow=follow)

    def end(self, *, follow: bool, was_whole: bool) -> End:
        """How reading ended, now that the stream has."""
        seeker = self._seeker
        if seeker is None:
            batch = self._text.finish(followed=follow)
            self._store(self._text.first, batch)
            return self._end_for_message(follow=follow) or End.WHOLE
        if seeker.message:
            return _end_for(seeker.message, follow=follow)
        # Nothing at all: a file that was begun when the container printed no more.
        if was_whole and not seeker.lines:
            return End.WHOLE
        return End.CUT if follow else End.MOVED

    def _end_for_message(self, *, follow: bool) -> End | None:
        if not self._text.message:
            return None
        if self._text.message_may_be_text:
            return End.CUT
        return _end_for(self._text.message, follow=follow)


def _end_for(message: str, *, follow: bool) -> End:
    if not follow or says_no_log(message):
        return End.REFUSED
    # The container was removed, after it had ended; the kubelet notices at the end of the log.
    return End.WHOLE if says_removed(message) else End.CUT


def _path(pod: PodRow) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
